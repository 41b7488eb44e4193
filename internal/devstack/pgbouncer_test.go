package devstack_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// TestPgbouncerPoolsByTheTransaction holds more transactions open than there
// are connections to the server, one after the other.
func TestPgbouncerPoolsByTheTransaction(t *testing.T) {
	skipShort(t)
	dsn, dir := devstacktest.Database(t), devstacktest.Dir(t)
	p, err := devstack.StartPgbouncer(t.Context(), devstack.PgbouncerOptions{Dir: dir, Postgres: dsn, PoolSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = devstack.StartPgbouncer(t.Context(), devstack.PgbouncerOptions{Dir: dir, Postgres: dsn})
	if err == nil || !strings.Contains(err.Error(), "a server already runs there") {
		t.Errorf("second start in the same folder: %v", err)
	}
	backends := make(map[int]bool)
	for range 3 {
		conn, err := pgx.Connect(t.Context(), p.DSN+"&default_query_exec_mode=exec")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		var pid int
		if err := conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		backends[pid] = true
	}
	if len(backends) != 1 {
		t.Errorf("3 clients had %d connections to the server, want 1", len(backends))
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, p.PID)
}

func TestPgbouncerSaysWhyItDoesNotStart(t *testing.T) {
	skipShort(t)
	start := func(o devstack.PgbouncerOptions) *devstack.StartError {
		o.Dir = devstacktest.Dir(t)
		_, err := devstack.StartPgbouncer(t.Context(), o)
		e, ok := errors.AsType[*devstack.StartError](err)
		if !ok {
			t.Fatalf("error = %v, want a StartError", err)
		}
		return e
	}
	const server = "postgres://u:secret@127.0.0.1:1/d"
	e := start(devstack.PgbouncerOptions{Postgres: server, Settings: map[string]string{"no_such_setting": "1"}})
	if !strings.Contains(e.Log, "no_such_setting") || !strings.HasPrefix(e.Hint, "less +G ") {
		t.Errorf("log %q, hint %q: want the pooler's own words and the command that shows more", e.Log, e.Hint)
	}
	for _, dsn := range []string{"", "host=/tmp user=u", "postgres://u:secret@[::1/d", "postgres://u@127.0.0.1:1/d"} {
		e := start(devstack.PgbouncerOptions{Postgres: dsn})
		if !strings.Contains(e.Error(), "postgres: ") || strings.Contains(e.Error(), "secret") {
			t.Errorf("start for %q: %v, want the option's name and no password", dsn, e)
		}
	}
}
