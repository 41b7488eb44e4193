package retention_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/retention"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
)

// today is the clock of most tests. It lies in the past, since Kafka refuses
// records of the future.
var today = time.Date(2025, 11, 24, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// A world is a database with an outbox table and a relay that can be started
// and stopped.
type world struct {
	t     testing.TB
	dsn   string
	pool  *pgxpool.Pool
	relay relay.Config
	topic string
	table pgx.Identifier
}

func newWorld(t testing.TB, dsn string) *world {
	t.Helper()
	w := &world{t: t, dsn: dsn, topic: devstacktest.Name(t), table: pgx.Identifier{"outbox"}}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 16
	if w.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
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
		w.exec(up)
	}
	return w
}

// withRelay makes the world's relay, on Kafka.
func (w *world) withRelay() *world {
	w.t.Helper()
	brokers := devstacktest.Kafka(w.t)
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	// By default Kafka would throw records of the past away.
	_, err = kadm.NewClient(client).CreateTopic(w.t.Context(), 1, 1, map[string]*string{"retention.ms": new("-1")}, w.topic)
	if err != nil {
		w.t.Fatalf("make topic %s: %v", w.topic, err)
	}
	w.relay = relay.Config{
		Postgres: w.dsn, Brokers: brokers, Source: w.topic, PositionsTopic: "_" + w.topic + ".positions",
		Table: strings.Join(w.table, "."), Publication: "publication_of_" + w.topic, ConfirmEvery: 10 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	return w
}

// start runs the relay until stop is called.
func (w *world) start() (stop func()) {
	w.t.Helper()
	r, err := relay.New(w.relay)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(w.t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	return func() {
		w.t.Helper()
		cancel()
		if err := <-done; err != nil {
			w.t.Fatalf("the relay: %v", err)
		}
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if len(args) == 0 {
		args = []any{pgx.QueryExecModeSimpleProtocol}
	}
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func (w *world) query(sql string, args ...any) (result string) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql, args...).Scan(&result); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return result
}

// insert is a statement that writes the event $1 at time $2.
func (w *world) insert() string {
	return fmt.Sprintf(`insert into %s (id, topic, aggregate_type, aggregate_id, type, payload, created_at) values ($1, '%s', 'thing', '1', 'Happened', '{}', $2)`,
		w.table.Sanitize(), w.topic)
}

// write commits events at the times given and gives their ids.
func (w *world) write(times ...time.Time) (ids []string) {
	w.t.Helper()
	for _, at := range times {
		id := outbox.NewID()
		w.exec(w.insert(), id, at)
		ids = append(ids, id.String())
	}
	return ids
}

// published reads Kafka until n records have come and a moment has passed
// without another one, and gives their ids.
func (w *world) published(n int) (ids []string) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.relay.Brokers...), kgo.ConsumeTopics(w.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	for {
		within := 30 * time.Second
		if len(ids) >= n {
			within = 300 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), within)
		fetches := client.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return ids
		}
		fetches.EachRecord(func(r *kgo.Record) {
			e, err := cloudevent.Decode(r)
			if err != nil {
				w.t.Fatal(err)
			}
			ids = append(ids, e.ID)
		})
	}
}

// retention makes one over the world's table with the clock at now.
func (w *world) retention(now time.Time, change ...func(*retention.Config)) *retention.Retention {
	w.t.Helper()
	cfg := retention.Config{DB: w.pool, Table: w.table, Now: func() time.Time { return now }}
	for _, f := range change {
		f(&cfg)
	}
	r, err := retention.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// step makes one pass, which must not fail.
func (w *world) step(now time.Time, change ...func(*retention.Config)) retention.Pass {
	w.t.Helper()
	p, err := w.retention(now, change...).Step(w.t.Context())
	if err != nil {
		w.t.Fatalf("pass at %v: %v", now, err)
	}
	return p
}

// tables gives the tables of the outbox: its partitions, and those detached.
func (w *world) tables() []string {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `select relname from pg_class where relkind = 'r' and relname like 'outbox%' order by 1`)
	if err != nil {
		w.t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// pass waits until every slot of the database has passed what is written now.
func (w *world) pass() {
	w.t.Helper()
	at := w.query(`select pg_current_wal_insert_lsn()::text`)
	w.flush()
	devstacktest.Wait(w.t, "the slots to pass "+at, 30*time.Second, func() bool {
		return w.query(`select coalesce(bool_and(confirmed_flush_lsn >= $1::pg_lsn), false)::text from pg_replication_slots where database = current_database()`, at) == "true"
	})
}

// flush brings all that is in the write-ahead log to disk, before which no slot
// moves beyond it.
func (w *world) flush() {
	w.t.Helper()
	w.exec(`begin; set local synchronous_commit = on; select pg_logical_emit_message(true, 'test', ''); commit`)
}

// slot makes a slot that nobody reads.
func (w *world) slot(name string) {
	w.t.Helper()
	w.exec(`select pg_create_logical_replication_slot('` + name + `', 'pgoutput')`)
}

// advance lets a slot pass all that was written before.
func (w *world) advance(name string) {
	w.t.Helper()
	w.flush()
	w.exec(`select pg_replication_slot_advance('` + name + `', pg_current_wal_flush_lsn())`)
}

func sorted(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return ids
}
