package migrations_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/migrations"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// The outbox is the library's: files can't be linked into an embed.FS, so each
// service has a copy.
func TestOutboxIsTheLibrarys(t *testing.T) {
	t.Parallel()
	for library, copied := range map[string]string{
		"00001_outbox.sql":      "00001_outbox.sql",
		"00002_outbox_emit.sql": "00005_outbox_emit.sql",
	} {
		want, err := schema.FS.ReadFile(library)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fs.ReadFile(migrations.User(), copied)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("migrations/user/%s differs from outbox/schema/%s: copy it again", copied, library)
		}
	}
}

func TestUserFS(t *testing.T) {
	t.Parallel()
	if err := fstest.TestFS(migrations.User(), "00001_outbox.sql", "00002_users.sql"); err != nil {
		t.Error(err)
	}
}

func TestUpDownUp(t *testing.T) {
	t.Parallel()
	dsn, log := devstacktest.Database(t), slog.New(slog.DiscardHandler)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	check := func() error { return migrations.Check(t.Context(), conn, migrations.User(), "user migrate") }
	latest, err := migrations.Latest(migrations.User())
	if err != nil {
		t.Fatal(err)
	}

	behind, ok := errors.AsType[*migrations.VersionError](check())
	if !ok || behind.Have != 0 || behind.Want != latest || behind.Hint != "user migrate" {
		t.Errorf("an empty database: %+v", behind)
	}
	var wg sync.WaitGroup
	for range 4 { // replicas that start together
		wg.Go(func() {
			if err := migrations.Up(t.Context(), dsn, migrations.User(), log); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first := tables(t, conn)
	if err := check(); err != nil || first == "goose_db_version" {
		t.Errorf("after up: tables %s, %v", first, err)
	}
	if err := migrations.Down(t.Context(), dsn, migrations.User()); err != nil {
		t.Fatal(err)
	}
	if got := tables(t, conn); got != "goose_db_version" {
		t.Errorf("down left %s", got)
	}
	var functions int
	if err := conn.QueryRow(t.Context(), `select count(*) from pg_proc where pronamespace = 'public'::regnamespace`).Scan(&functions); err != nil || functions != 0 {
		t.Errorf("down left %d functions, %v", functions, err)
	}
	if err := check(); err == nil {
		t.Error("Check accepts a database without tables")
	}
	if err := migrations.Up(t.Context(), dsn, migrations.User(), log); err != nil {
		t.Fatal(err)
	}
	if got := tables(t, conn); got != first {
		t.Errorf("up again gave %s, want %s", got, first)
	}
}

func tables(t *testing.T, conn *pgx.Conn) (names string) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `select string_agg(tablename, ' ' order by tablename) from pg_tables where schemaname = 'public'`).Scan(&names)
	if err != nil {
		t.Fatal(err)
	}
	return names
}
