package devstacktest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/seed-048de892/walpost/internal/devstack"
)

// DatabaseOf is [Database] on a PostgreSQL of the major version, "14" to "18".
// The first test of a process that wants a version starts it; the server dies
// with the process. One in the environment is not used.
func DatabaseOf(t testing.TB, version string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test needs a real server")
	}
	start, _ := versions.LoadOrStore(version, sync.OnceValues(func() (string, error) { return postgresOf(version) }))
	admin, err := start.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return databaseOn(t, admin)
}

var versions sync.Map // by major version, what [postgresOf] gives

func postgresOf(version string) (string, error) {
	return start("postgres"+version, func(ctx context.Context, dir string) (string, error) {
		p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir, Version: version, NoFsync: true, Progress: os.Stderr})
		if err != nil {
			return "", err
		}
		return p.DSN, nil
	})
}

// Pgbouncer gives the DSN of the same database by way of a PgBouncer of the
// test's own, which pools by the transaction and has two connections to the
// server.
func Pgbouncer(t testing.TB, dsn string) string {
	t.Helper()
	p, err := devstack.StartPgbouncer(t.Context(), devstack.PgbouncerOptions{Dir: filepath.Join(Dir(t), "pgbouncer"), Postgres: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return p.DSN
}
