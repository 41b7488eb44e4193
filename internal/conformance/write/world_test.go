package write_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
)

// A world is a database with an outbox, a relay that publishes it, and a
// reader of all that it publishes. Tests share one side by side, each with an
// aggregate type of its own.
type world struct {
	dsn    string // of the database
	pooled string // of the same by way of PgBouncer
	topics [2]string
	reader *reader
	fences fences
}

// fences serves one test at a time.
type fences struct {
	mu   sync.Mutex
	conn *pgx.Conn
}

// newWorld makes a world on a PostgreSQL of the major version.
func newWorld(t *testing.T, version string) *world {
	t.Helper()
	dsn, brokers, name := devstacktest.DatabaseOf(t, version), devstacktest.Kafka(t), devstacktest.Name(t)
	w := &world{dsn: dsn, pooled: devstacktest.Pgbouncer(t, dsn), topics: [2]string{name + ".a", name + ".b"}}
	conn := connect(t, dsn)
	applySchema(t, conn)
	// What the caller changes beside the events.
	if _, err := conn.Exec(t.Context(), `create table business (n bigint not null)`); err != nil {
		t.Fatal(err)
	}
	r, err := relay.New(relay.Config{
		Postgres: dsn, Brokers: brokers, Source: name, PositionsTopic: "_" + name + ".positions",
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reader = startReader(t, brokers, w.topics[:])
	var done sync.WaitGroup
	done.Go(func() {
		if err := r.Run(t.Context()); err != nil {
			w.reader.fail(fmt.Errorf("the relay ended: %w", err))
			t.Errorf("the relay: %v", err)
		}
	})
	t.Cleanup(done.Wait)
	devstacktest.Wait(t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(t.Context()) == nil || t.Failed() })
	// The test's server flushes a commit some time later, and nothing is
	// published before. These are flushed at once, with all before them.
	w.fences.conn = connect(t, dsn+"&synchronous_commit=on")
	return w
}

// applySchema applies the library's migrations.
func applySchema(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	files, err := fs.Glob(schema.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		migration, err := schema.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(migration), "-- +goose Down")
		if _, err := conn.Exec(t.Context(), up, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("apply %s: %v", file, err)
		}
	}
}

// connect opens a connection that is closed at the end of the test.
func connect(t testing.TB, dsn string, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(config)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// settle gives the records of aggregateType, in commit order, once everything
// that was committed before the call has been published.
func (w *world) settle(t tester, aggregateType string) []received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fence := outbox.NewID()
	must(t, w.fences.write(ctx, w.topics[0], fence))
	records, err := w.reader.upTo(ctx, fence.String(), aggregateType)
	must(t, err)
	return records
}

// write commits the event id, not by any path under test.
func (f *fences) write(ctx context.Context, topic string, id outbox.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.conn.Exec(ctx, `insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload) values ($1, $2, 'fence', 'fence', 'Fence', '')`, id, topic)
	return err
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}
