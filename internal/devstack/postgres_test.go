package devstack_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

func TestPostgresKeepsRowsOverKillAndStop(t *testing.T) {
	skipShort(t)
	dir := devstacktest.Dir(t)
	p := startPostgres(t, devstack.PostgresOptions{Dir: dir})
	query[string](t, p.DSN, "create table t (v text)", "")
	query(t, p.DSN, "insert into t values ('one') returning v", "one")

	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "a server already runs there") {
		t.Errorf("second start in the same folder: %v, want: a server already runs there", err)
	}
	query(t, p.DSN, "select v from t", "one") // and has done no harm

	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, p.PID)
	p = startPostgres(t, devstack.PostgresOptions{Dir: dir})
	query(t, p.DSN, "select v from t", "one")

	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, p.PID)
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	// The process id in the file is one that lives and is no server.
	stale := "1\n" + filepath.Join(dir, "data") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(stale), 0o644); err != nil {
		t.Fatal(err)
	}
	p = startPostgres(t, devstack.PostgresOptions{Dir: dir, NoFsync: true, Settings: map[string]string{"work_mem": "7MB"}})
	query(t, p.DSN, "select v from t", "one")
	query(t, p.DSN, "show work_mem", "7MB")
	query(t, p.DSN, "show wal_level", "logical")
	query(t, p.DSN, "show listen_addresses", "127.0.0.1")

	dsn, err := p.CreateDatabase(t.Context(), "Of its own")
	if err != nil {
		t.Fatal(err)
	}
	query(t, dsn, "select current_database()::text", "Of its own")
}

func TestPostgresOfAnExplicitVersionIsFetched(t *testing.T) {
	skipShort(t)
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "postgres"), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 15.1'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WALPOST_POSTGRES_BIN", other) // of another version, so not meant
	dir := devstacktest.Dir(t)
	p := startPostgres(t, devstack.PostgresOptions{Dir: dir, Version: "17", NoFsync: true, Progress: t.Output()})
	query(t, p.DSN, "select (current_setting('server_version_num')::int / 10000)::text", "17")
	// What the relay needs is in the package.
	query(t, p.DSN, "select slot_name::text from pg_create_logical_replication_slot('s', 'pgoutput')", "s")
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Dir: dir, Version: "16"})
	if err == nil || !strings.Contains(err.Error(), "the data there is of PostgreSQL 17, not 16") {
		t.Errorf("start of 16 on data of 17: %v", err)
	}
}

func TestPostgresFromNPM(t *testing.T) {
	skipShort(t)
	for _, program := range []string{"npm", "node"} {
		if !onPath(t, program) {
			t.Fatalf("%s is needed here; install: apt-get install npm", program)
		}
	}
	t.Setenv("WALPOST_CACHE", devstacktest.Dir(t))
	t.Setenv("PATH", pathOf(t, "npm", "node", "sh", "env"))
	p := startPostgres(t, devstack.PostgresOptions{Dir: devstacktest.Dir(t), Version: "16", NoFsync: true, Progress: t.Output()})
	query(t, p.DSN, "select (current_setting('server_version_num')::int / 10000)::text", "16")
}

func TestPostgresSaysWhyItDoesNotStart(t *testing.T) {
	skipShort(t)
	_, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{
		Dir: devstacktest.Dir(t), NoFsync: true, Settings: map[string]string{"no_such_setting": "1"},
	})
	e, ok := errors.AsType[*devstack.StartError](err)
	if !ok {
		t.Fatalf("error = %v, want a StartError", err)
	}
	if !strings.Contains(e.Log, "no_such_setting") || !strings.HasPrefix(e.Hint, "less +G ") {
		t.Errorf("log %q, hint %q: want the server's own words and the command that shows more", e.Log, e.Hint)
	}
}

func TestPostgresStartEndsWithItsContext(t *testing.T) {
	skipShort(t)
	dir := devstacktest.Dir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir}); err == nil {
		t.Fatal("started within 50 ms, initdb included")
	}
	startPostgres(t, devstack.PostgresOptions{Dir: dir}) // nothing half is left
}

func startPostgres(t *testing.T, o devstack.PostgresOptions) *devstack.Postgres {
	t.Helper()
	begun := time.Now()
	p, err := devstack.StartPostgres(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start took %v", time.Since(begun))
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		gone(t, p.PID)
	})
	return p
}

// query runs one statement and compares its one value, if it gives one.
func query[T comparable](t *testing.T, dsn, sql string, want T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var got T
	if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	if got != want {
		t.Errorf("%s = %v, want %v", sql, got, want)
	}
}
