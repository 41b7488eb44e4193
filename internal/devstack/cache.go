package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CacheDir is where fetched servers are kept: $WALPOST_CACHE when set; for
// root /var/cache/walpost, since PostgreSQL has to run under another account
// and nothing below root's home is open to one; else the folder walpost in the
// user's cache folder. Deleting it is safe while no server runs.
func CacheDir() (string, error) { return cacheDir(os.Getenv("WALPOST_CACHE"), os.Geteuid()) }

func cacheDir(override string, euid int) (string, error) {
	if override != "" {
		return filepath.Abs(override)
	}
	if euid == 0 {
		return "/var/cache/walpost", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder: %w; set WALPOST_CACHE", err)
	}
	return filepath.Join(dir, "walpost"), nil
}

// A download is something that is fetched once into the cache.
type download struct {
	name  string // its folder, with the version
	title string // for people
	size  string // about what is transferred
	fetch func(ctx context.Context, dir string) error
}

// get gives the folder of d, fetching it on first use. Processes that want it
// at the same time wait for the one that fetches. The folder appears under its
// name only when it is whole, so one that was cut off is never used.
func (d download) get(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, d.name)
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder: %w; set WALPOST_CACHE to another", err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if err := waitLock(ctx, lock, func() {
		report(progress, "waiting for another process that is getting %s", d.title)
	}); err != nil {
		return "", fmt.Errorf("wait for another process that is getting %s: %w", d.title, err)
	}
	if exists(dir) {
		return dir, nil
	}
	if err := d.into(ctx, dir, progress); err != nil {
		return "", fmt.Errorf("get %s: %w", d.title, err)
	}
	return dir, nil
}

func (d download) into(ctx context.Context, dir string, progress io.Writer) error {
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := os.Mkdir(partial, 0o755); err != nil {
		return err
	}
	report(progress, "getting %s (%s) into %s", d.title, d.size, dir)
	begun := time.Now()
	if err := d.fetch(ctx, partial); err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	bytes, err := open(partial)
	if err != nil {
		return err
	}
	if err := os.Rename(partial, dir); err != nil {
		return err
	}
	report(progress, "got %s: %d MB on disk in %.1f s", d.title, bytes>>20, time.Since(begun).Seconds())
	return nil
}

// open makes everything below dir readable for every account, whatever our
// umask is, and gives its size.
func open(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if mode&0o100 != 0 {
			mode |= 0o111
		}
		size += info.Size()
		return os.Chmod(path, mode)
	})
	return size, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func report(w io.Writer, format string, args ...any) {
	if w != nil {
		fmt.Fprintf(w, format+"\n", args...)
	}
}

// tryLock takes an exclusive lock that ends with the file or this process.
func tryLock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// waitLock is tryLock that waits, and calls waiting once if it has to.
func waitLock(ctx context.Context, f *os.File, waiting func()) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		err := tryLock(f)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if tries == 0 {
			waiting()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
