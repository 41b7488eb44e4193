package inbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/inbox"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// limit is for what should happen soon on a machine that others use too.
const limit = time.Minute

// A step is the event of these tests: the N-th of its key.
type step struct{ N int }

// A world is a database with the library's tables and one for effects, and a
// topic of its own.
type world struct {
	dsn     string
	pool    *pgxpool.Pool
	brokers []string
	topic   string
	client  *kgo.Client
	admin   *kadm.Client
}

func newWorld(t testing.TB, partitions int32) *world {
	t.Helper()
	w := &world{dsn: devstacktest.Database(t), brokers: devstacktest.Kafka(t), topic: devstacktest.Name(t)}
	w.pool = w.connect(t, w.dsn)
	migrate(t, w.pool)
	// Serial order within a key is that of pos: whoever inserts later began later.
	w.exec(t, `create table effects (pos bigint generated always as identity, key text not null, n integer not null, member text not null)`)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.client, w.admin = client, kadm.NewClient(client)
	w.createTopic(t, w.topic, partitions)
	return w
}

func (w *world) createTopic(t testing.TB, topic string, partitions int32) {
	t.Helper()
	if _, err := w.admin.CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

func (w *world) connect(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func migrate(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	names, err := fs.Glob(schema.FS, "*.sql")
	if err != nil || len(names) < 3 {
		t.Fatalf("migrations %v, %v", names, err)
	}
	for _, name := range names {
		migration, err := schema.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		up, _, _ := strings.Cut(string(migration), "-- +goose Down")
		if _, err := pool.Exec(t.Context(), up); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func (w *world) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := w.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// value is what a query gives as one value.
func value[T any](t testing.TB, w *world, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := w.pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (w *world) typed() outbox.Typed[step] {
	return outbox.Typed[step]{Name: "Stepped", Topic: w.topic, AggregateType: "walker"}
}

// config is quick to give up and to try again.
func (w *world) config(t testing.TB) inbox.Config {
	return inbox.Config{
		Brokers: w.brokers, Group: w.topic, Pool: w.pool, Window: -1,
		MaxAttempts: 3, Backoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		CommitEvery: 20 * time.Millisecond, SessionTimeout: 6 * time.Second, Grace: limit, RebalanceGrace: 20 * time.Second,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// event is the record of the n-th step of key, always the same.
func (w *world) event(key string, n int) *kgo.Record {
	payload, err := json.Marshal(step{N: n})
	if err != nil {
		panic(err)
	}
	id := outbox.ID{15: byte(n), 14: byte(n >> 8)}
	copy(id[:12], key)
	return cloudevent.Record(w.topic, &cloudevent.Event{
		ID: id.String(), Source: w.topic, Type: "Stepped", Subject: key, AggregateType: "walker", AggregateVersion: int64(n),
		Time: time.Date(2026, 11, 24, 9, 0, 0, n*1000, time.UTC), Data: payload,
	})
}

func (w *world) produce(t testing.TB, records ...*kgo.Record) {
	t.Helper()
	if err := w.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// steps produces the steps from first to last of each key, the keys in turn.
func (w *world) steps(t testing.TB, first, last int, keys ...string) {
	t.Helper()
	var records []*kgo.Record
	for n := first; n <= last; n++ {
		for _, key := range keys {
			records = append(records, w.event(key, n))
		}
	}
	w.produce(t, records...)
}

// effect is the handler's effect of these tests.
func effect(ctx context.Context, tx pgx.Tx, e inbox.Received[step], member string) error {
	_, err := tx.Exec(ctx, `insert into effects (key, n, member) values ($1, $2, $3)`, e.Subject, e.Value.N, member)
	return err
}

type handle = func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error

// start runs an inbox with one handler until stop is called, which gives what
// Run returned; the end of the test calls it too.
func (w *world) start(t testing.TB, config inbox.Config, h handle) (in *inbox.Inbox, stop func() error) {
	t.Helper()
	in, err := inbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := inbox.Handle(in, w.typed(), h); err != nil {
		t.Fatal(err)
	}
	return in, run(t, in)
}

func run(t testing.TB, in *inbox.Inbox) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return stop
}

// wait waits until a query says true.
func (w *world) wait(t testing.TB, sql string, args ...any) {
	t.Helper()
	devstacktest.Wait(t, fmt.Sprint(sql, " ", args), limit, func() bool { return value[bool](t, w, sql, args...) })
}

// check fails unless each of the steps 1 to last of each key has had its effect
// once, in order.
func (w *world) check(t testing.TB, last int, keys ...string) {
	t.Helper()
	for _, key := range keys {
		got := value[[]int](t, w, `select coalesce(array_agg(n order by pos), '{}') from effects where key = $1`, key)
		for i := range max(len(got), last) {
			if i >= len(got) || got[i] != i+1 || i >= last {
				t.Errorf("key %s: steps had their effects as %v, want 1 to %d once and in order", key, got, last)
				break
			}
		}
	}
}

// committed gives the sum of the group's committed offsets.
func (w *world) committed(t testing.TB) int64 {
	t.Helper()
	var offsets kadm.OffsetResponses
	devstacktest.Wait(t, "the group's coordinator", limit, func() (ok bool) {
		var err error
		offsets, err = w.admin.FetchOffsets(t.Context(), w.topic)
		if err != nil && !kerr.IsRetriable(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	var sum int64
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	return sum
}

func keys(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("k%02d", i)
	}
	return list
}

var errFlaky = errors.New("not this time")
