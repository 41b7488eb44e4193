// Package daemon is what every program of walpost does alike: signals, flags,
// logs, the operations address and exit codes.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes, the same for every program.
const (
	ExitDone    = 0
	ExitFailed  = 1
	ExitUsage   = 2 // wrong flags or arguments
	ExitPromise = 3 // a promise is broken: a gap was found, a verification failed
)

// An ExitError ends the program with a code other than [ExitFailed].
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// Main is the body of a main function: it runs run with a context that ends on
// SIGINT or SIGTERM, prints its error in one line and gives the exit code. A
// second signal kills the process at once.
func Main(run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	code := exitCode(err)
	if err != nil && code != ExitDone {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
	}
	return code
}

func exitCode(err error) int {
	if err == nil || errors.Is(err, ErrHelp) {
		return ExitDone
	}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return exit.Code
	}
	return ExitFailed
}
