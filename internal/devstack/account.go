package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account gives the account that a server runs under which refuses to run as
// root: postgres, else nobody. For anybody but root it is nil: our own.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // no other account is a valid answer
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("account %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("root needs an account postgres or nobody to run PostgreSQL as")
}

// reachable checks that the account may enter every folder on the way to path.
// It reads the mode bits only: enough to turn the usual mistakes, a folder of
// root's or of os.MkdirTemp, into an error that says so.
func reachable(as *syscall.Credential, path string) error {
	if as == nil {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if ok && !mayEnter(as, owner, info.Mode()) {
			return fmt.Errorf("%s is closed to the account with user id %d, which PostgreSQL runs as when started by root; run: chmod a+x %s, or choose another folder", dir, as.Uid, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func mayEnter(as *syscall.Credential, owner *syscall.Stat_t, mode os.FileMode) bool {
	switch {
	case owner.Uid == as.Uid:
		return mode&0o100 != 0
	case owner.Gid == as.Gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// give makes path the account's.
func give(as *syscall.Credential, path string) error {
	if as == nil {
		return nil
	}
	return os.Chown(path, int(as.Uid), int(as.Gid))
}
