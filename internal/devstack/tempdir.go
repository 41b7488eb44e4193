package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// tempPrefix begins the name of every folder of TempDir.
const tempPrefix = "walpost-dev-"

// TempDir makes a folder for servers whose data is thrown away. Its path is
// short enough for PostgreSQL's socket, and when this process is root's, the
// account that PostgreSQL runs as can reach it, which it can't a folder of
// os.MkdirTemp. Call remove when the servers have stopped. A process that is
// killed can't; the next TempDir removes the folders of those.
func TempDir() (dir string, remove func() error, err error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*"))
	for _, dir := range old {
		removeStale(dir)
	}
	if dir, err = os.MkdirTemp("", tempPrefix); err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	fd, err := hold(dir)
	if err != nil {
		return "", nil, fmt.Errorf("hold %s: %w", dir, err)
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), syscall.Close(fd)) }, nil
}

// hold locks dir until the descriptor is closed or this process ends. It is a
// bare descriptor since the garbage collector closes an [os.File] that nobody
// keeps.
func hold(dir string) (int, error) {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return -1, errors.Join(err, syscall.Close(fd))
	}
	return fd, nil
}

// removeStale removes the folder of a process of ours that has ended. What
// fails is left for another time: another process may be at it too.
func removeStale(dir string) {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute { // a new one may not be held yet
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
		return
	}
	fd, err := hold(dir)
	if err != nil {
		return
	}
	defer func() { _ = syscall.Close(fd) }()
	_ = os.RemoveAll(dir)
}
