// Command run starts a PostgreSQL, an Apache Kafka and a MongoDB, runs a
// command that finds them in its environment, and stops them:
//
//	go run ./internal/devstack/run -- go test ./...
//
// The variables are those of package devstacktest; a server whose variable is
// set already is not started. The exit code is the command's, and 128 and the
// signal's number when a signal ended it (go run makes 1 of any failure).
// Signals are passed on. With --fetch it only downloads what the machine lacks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/seed-048de892/walpost/internal/devstack"
)

const usage = "usage: run [--fetch] [--] command [argument …]"

func main() {
	// go run does not pass SIGTERM on: when it goes, so do we, in order.
	const setParentDeathSignal = 1
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setParentDeathSignal, uintptr(syscall.SIGTERM), 0)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code, err := run(context.Background(), os.Args[1:], signals, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
	}
	os.Exit(code)
}

// run is main without the process. A signal during the start ends it; later
// ones go to the command.
func run(ctx context.Context, args []string, signals <-chan os.Signal, stdout, stderr io.Writer) (int, error) {
	fetch := len(args) > 0 && args[0] == "--fetch"
	if fetch {
		args = args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if fetch != (len(args) == 0) {
		return 2, errors.New(usage)
	}
	s := servers{progress: stderr}
	start := s.start
	if fetch {
		start = func(ctx context.Context) error { return devstack.Fetch(ctx, stderr) }
	}
	begun := time.Now()
	if err := untilSignal(ctx, signals, start); err != nil {
		return 1, errors.Join(err, s.stop(ctx))
	}
	if fetch {
		return 0, nil
	}
	fmt.Fprintf(stderr, "run: servers started in %.1f s\n", time.Since(begun).Seconds())
	code, err := command(args, s.environment, signals, stdout, stderr)
	if err := errors.Join(err, s.stop(ctx)); err != nil {
		return max(code, 1), err
	}
	return code, nil
}

// untilSignal runs f and ends its context when a signal comes.
func untilSignal(ctx context.Context, signals <-chan os.Signal, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case sig := <-signals:
		cause := fmt.Errorf("stopped by signal: %v", sig)
		cancel(cause)
		<-done //nolint:errcheck // it ends because of the signal
		return cause
	}
}

// command runs args to its end and gives its exit code.
func command(args, environment []string, signals <-chan os.Signal, stdout, stderr io.Writer) (int, error) {
	// The command is to end when we are killed, and the parent-death signal
	// is that of the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // ended by the signals that are passed on
	cmd.Env = slices.Concat(os.Environ(), environment)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return 127, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			_ = cmd.Process.Signal(sig) // fails only when it has ended
		case err := <-done:
			if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
				return 1, err
			}
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}
