// Package demo runs all of walpost in one process, on servers of its own, and
// follows events from the request to the archive.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/services/user"
)

// Config says how a [Demo] runs. A zero field has its default.
type Config struct {
	// Dir keeps data and logs, and stays behind: a folder that is missing or
	// empty, open to the account that PostgreSQL runs as when root starts it.
	// Defaults to a temporary one, which is removed at the end; after an error
	// it stays for its logs, until a later start.
	Dir string

	// Rate is how many requests a second are sent, up to 1,000. Defaults to 5.
	// A service that is slower gets fewer.
	Rate float64

	// Timeout bounds the way from running servers to ready programs, and in
	// once mode also to the last event's arrival. Fetching and starting
	// servers is not part of it. Defaults to 60 s.
	Timeout time.Duration

	// Progress gets a line for what takes long. Defaults to nobody.
	Progress io.Writer

	// User, Relay and Archive change how the demo configures each. Nil changes
	// nothing.
	User    func(*user.Config)
	Relay   func(*relay.Config)
	Archive func(*archive.Config)
}

// A Demo is everything from the user service to the archive. Any number of
// demos run side by side: each has its own folder, servers and ports.
type Demo struct{ cfg Config }

// New checks cfg and reports every problem of it at once. It starts nothing.
func New(cfg Config) (*Demo, error) {
	if cfg.Rate == 0 {
		cfg.Rate = 5
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	var errs []error
	if !(cfg.Rate > 0 && cfg.Rate <= 1000) { // written so that it refuses NaN
		errs = append(errs, fmt.Errorf("rate: must be above 0 and at most 1000, got %v", cfg.Rate))
	}
	if cfg.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: must not be negative, got %v", cfg.Timeout))
	}
	if entries, err := os.ReadDir(cfg.Dir); cfg.Dir != "" && err == nil && len(entries) > 0 {
		errs = append(errs, fmt.Errorf("dir: %s is not empty", cfg.Dir))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("configure the demo: %w", err)
	}
	return &Demo{cfg: cfg}, nil
}

// A failure is why a demo failed, and where its logs are.
type failure struct {
	err  error
	logs string
}

func (f *failure) Error() string { return fmt.Sprintf("%v\nlogs: %s", f.err, f.logs) }
func (f *failure) Unwrap() error { return f.err }

// run starts everything, calls work, and returns after everything has stopped:
// when work returns, when ctx ends, which is no error, or when a part fails.
// The error is a [*failure] that names the part that failed first. made, if
// given, gets the stack as the servers run; work when the programs are ready.
func (d *Demo) run(ctx context.Context, made func(*stack), work func(context.Context, *stack) error) (err error) {
	began := time.Now()
	dir, remove, err := d.folder()
	if err != nil {
		return fmt.Errorf("make the demo's folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = &failure{err: err, logs: filepath.Join(dir, "log")}
			return
		}
		err = remove()
	}()
	servers := &servers{dir: dir, progress: devstack.NewLines(d.cfg.Progress)}
	defer func() { err = errors.Join(err, servers.stop(ctx)) }()
	if err := servers.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while starting
		}
		return err
	}
	s, err := newStack(ctx, d.cfg, servers)
	if err != nil {
		return err
	}
	defer s.close()
	s.began, s.serversReady = began, time.Now()
	if made != nil {
		made(s)
	}
	parts := append(s.parts(), servers.watch, func(ctx context.Context) error {
		if err := s.awaitReady(ctx, d.cfg.Timeout); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped while starting
		}
		s.partsReady = time.Now()
		return work(ctx, s)
	})
	return daemon.Run(ctx, parts...)
}

// folder gives the demo's folder, and what to do with it after success.
func (d *Demo) folder() (dir string, remove func() error, err error) {
	if d.cfg.Dir == "" {
		return devstack.TempDir()
	}
	if dir, err = filepath.Abs(d.cfg.Dir); err != nil {
		return "", nil, err
	}
	return dir, func() error { return nil }, os.MkdirAll(dir, 0o755)
}
