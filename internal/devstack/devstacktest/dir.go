package devstacktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// prefix begins the name of every folder made here.
const prefix = "walpost-test-"

// Dir is t.TempDir for a server's data: a folder that PostgreSQL's account can
// reach when the tests run as root, with a path short enough for a socket. It
// is removed at the end of the test; stop the server before.
func Dir(t testing.TB) string {
	t.Helper()
	parent, err := processDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "t")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's folder: %v", err)
		}
	})
	return dir
}

// processDir is this process's folder. Nothing runs when a test process ends
// that could remove it, so the next one removes those nobody holds any more.
var processDir = sync.OnceValues(func() (string, error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range old {
		removeStale(dir)
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := hold(dir); err != nil {
		return "", fmt.Errorf("hold %s: %w", dir, err)
	}
	return dir, nil
})

// hold locks dir for as long as the file is open. The file must not be closed
// by the garbage collector, so its descriptor is all that is kept.
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

// removeStale removes the folder of a process that has ended, if it is ours.
// What fails is left for another time: another process may be at it too.
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
