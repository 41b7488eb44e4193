package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

func TestEveryProblemOfAConfigIsTold(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Group: "g\x00", Concurrency: -1, MaxInFlight: -1, MaxAttempts: -1, SessionTimeout: -1, Backoff: time.Hour, CommitEvery: 1,
		Window: 1, Unknown: 9, Undecodable: 9, Hooks: []Hook{7},
	})
	if err == nil {
		t.Fatal("New: no error")
	}
	for _, field := range []string{"Brokers", "Group", "Concurrency", "MaxInFlight", "MaxAttempts", "SessionTimeout", "MaxBackoff", "CommitEvery", "Window", "Unknown", "Undecodable", "Hooks[0]"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error says nothing of %s:\n%v", field, err)
		}
	}
	in, err := New(Config{Brokers: []string{"127.0.0.1:1"}, Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing to consume") {
		t.Errorf("Run with no topics: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := Config{Backoff: time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "backoff"))}
		c.MaxBackoff = c.Backoff * time.Duration(rapid.Int64Range(1, 5000).Draw(t, "times"))
		attempt := rapid.IntRange(1, 1000).Draw(t, "attempt")
		want := c.MaxBackoff
		if attempt < 40 {
			want = min(want, c.Backoff<<(attempt-1))
			if c.Backoff<<(attempt-1)>>(attempt-1) != c.Backoff {
				want = c.MaxBackoff
			}
		}
		if got := c.backoff(attempt); got < want/2 || got > want {
			t.Fatalf("backoff(%d) = %v, want %v to %v", attempt, got, want/2, want)
		}
	})
}

func TestWhoseFailure(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		events bool
	}{
		"a handler's error":    {errors.New("no"), true},
		"a constraint":         {&pgconn.PgError{Code: "23505"}, true},
		"a deadlock":           {&pgconn.PgError{Code: "40P01"}, true},
		"a statement timeout":  {&pgconn.PgError{Code: "57014"}, true},
		"a context's deadline": {fmt.Errorf("query: %w", context.DeadlineExceeded), true},
		"no connection":        {fmt.Errorf("query: %w", &pgconn.ConnectError{}), false},
		"a shutdown":           {fmt.Errorf("query: %w", &pgconn.PgError{Code: "57P01"}), false},
		"too many connections": {&pgconn.PgError{Code: "53300"}, false},
		"a moved primary":      {&pgconn.PgError{Code: "25006"}, false},
	}
	for name, tt := range tests {
		if got := isFailure(judge(nil, tt.err)); got != tt.events {
			t.Errorf("%s: counted against the event: %t, want %t", name, got, tt.events)
		}
	}
	if judge(nil, nil) != nil || Permanent(nil) != nil {
		t.Error("no error became one")
	}
	if err := Permanent(errors.New("x")); !isPermanent(fmt.Errorf("wrapped: %w", err)) || isPermanent(errors.New("x")) {
		t.Error("a permanent error is not told from others")
	}
}

func TestAPanicIsAnError(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	err := protect(func() error { panic(cause) })
	var p *PanicError
	if !errors.As(err, &p) || !errors.Is(err, cause) || !strings.Contains(err.Error(), "TestAPanicIsAnError") {
		t.Errorf("protect: %v, want the cause and the stack", err)
	}
}
