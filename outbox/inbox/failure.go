package inbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Permanent marks an error that no retry can mend: a handler that returns it
// makes its event a dead letter at once. It wraps err; nil gives nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// A failure is what an event itself is to blame for, or its handler: it is
// counted as an attempt. Any other error is PostgreSQL's, and the event waits.
type failure struct{ err error }

func (e *failure) Error() string { return e.err.Error() }
func (e *failure) Unwrap() error { return e.err }

func isFailure(err error) bool {
	var f *failure
	return errors.As(err, &f)
}

func isPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// errUndecodable is wrapped by the permanent error of a payload that is not
// what its type says.
var errUndecodable = errors.New("undecodable payload")

// errUnknownType is for an event taken from inbox_dead whose type has no
// handler: it must not vanish from there.
var errUnknownType = errors.New("no handler for this type: deploy one, or drop the letter")

// A PanicError is the error of a handler that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v\n%s", e.Value, e.Stack) }

// Unwrap gives the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// protect calls f and turns a panic into an error. A handler that ends its
// goroutine, as t.FailNow does, is let go: nothing can hold it.
func protect(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// judge says whose fault a handler's error is: nobody's but PostgreSQL's when
// it was away in the middle, else the event's.
func judge(tx pgx.Tx, err error) error {
	if err == nil || isOutage(err) {
		return err
	}
	ended := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if tx != nil && !ended && tx.Conn() != nil && tx.Conn().IsClosed() {
		return err
	}
	return &failure{err}
}

// isOutage reports whether err is one that PostgreSQL gives, whoever asks,
// because it is not at work: by the classes of
// https://www.postgresql.org/docs/current/errcodes-appendix.html.
func isOutage(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) || len(e.Code) != 5 {
		return false
	}
	switch e.Code[:2] {
	case "08", "53", "58": // connection, resources, system
		return true
	}
	switch e.Code {
	case "57P01", "57P02", "57P03", // shutting down, or starting
		"25006": // read-only: the primary has moved
		return true
	}
	return false
}
