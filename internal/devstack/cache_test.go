package devstack

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestCacheDir(t *testing.T) {
	t.Setenv("HOME", "/home/ada")
	t.Setenv("XDG_CACHE_HOME", "")
	tests := map[string]struct {
		override string
		euid     int
		want     string
	}{
		"root":             {euid: 0, want: "/var/cache/walpost"},
		"a plain account":  {euid: 1000, want: "/home/ada/.cache/walpost"},
		"chosen by root":   {override: "/srv/cache", euid: 0, want: "/srv/cache"},
		"chosen by others": {override: "/srv/cache", euid: 1000, want: "/srv/cache"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := cacheDir(tt.override, tt.euid); err != nil || got != tt.want {
				t.Errorf("cacheDir(%q, %d) = %q, %v, want %q", tt.override, tt.euid, got, err, tt.want)
			}
		})
	}
}

func TestDownloadIsFetchedOnceByAllAtOnce(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("WALPOST_CACHE", cache)
	var fetched atomic.Int32
	d := download{name: "thing-1", title: "Thing 1", size: "1 byte", fetch: func(_ context.Context, dir string) error {
		fetched.Add(1)
		if exists(filepath.Join(cache, "thing-1")) {
			return errors.New("the folder is there before it is whole")
		}
		return os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600)
	}}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dir, err := d.get(t.Context(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			// Root's server account must be able to read it.
			info, err := os.Stat(filepath.Join(dir, "file"))
			if err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("file: %v, %v, want mode 0644", info, err)
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
}

func TestDownloadThatFailsIsTriedAgain(t *testing.T) {
	t.Setenv("WALPOST_CACHE", t.TempDir())
	refused, progress := errors.New("refused"), new(bytes.Buffer)
	d := download{name: "thing-1", title: "Thing 1", size: "1 byte", fetch: func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), refused)
	}}
	if _, err := d.get(t.Context(), progress); !errors.Is(err, refused) {
		t.Fatalf("error = %v, want %v", err, refused)
	}
	d.fetch = func(context.Context, string) error { return nil }
	dir, err := d.get(t.Context(), progress)
	if err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(dir, "half")) {
		t.Error("what the first try left is in the folder")
	}
	if got := strings.Count(progress.String(), "\n"); got != 3 || !strings.Contains(progress.String(), "got Thing 1: 0 MB") {
		t.Errorf("progress is %q, want two lines that begin and one that ends", progress)
	}
}

func TestWaitForALockEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err1 := os.Create(path)
	other, err2 := os.Open(path)
	if err := errors.Join(err1, err2, tryLock(held)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := waitLock(ctx, other, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := waitLock(t.Context(), other, func() { t.Error("waited for a lock that is free") }); err != nil {
		t.Error(err)
	}
}

func TestReachable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := reachable(&syscall.Credential{Uid: 65533, Gid: 65533}, filepath.Join(dir, "data"))
	if err == nil || !strings.Contains(err.Error(), "chmod a+x "+dir) {
		t.Errorf("a closed folder: %v, want the command that opens it", err)
	}
	if err := reachable(&syscall.Credential{Uid: 65533, Gid: 65533}, "/usr/bin/env"); err != nil {
		t.Errorf("an open folder: %v", err)
	}
	if err := reachable(nil, filepath.Join(dir, "data")); err != nil {
		t.Errorf("our own account: %v", err)
	}
}
