package deadletters_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/inbox"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// limit is for what should take a moment.
const limit = time.Minute

// A moved is the payload of the tests' events: the number of the event among
// all of the world.
type moved struct {
	N int `json:"n"`
}

// A world is a database with the tables, a topic and a consumer group.
type world struct {
	t       *testing.T
	dsn     string
	pool    *pgxpool.Pool
	brokers []string
	topic   string
	group   string
	client  *kgo.Client
	plan    plan
}

// newWorld makes a world whose topic has that many partitions.
func newWorld(t *testing.T, partitions int32) *world {
	t.Helper()
	w := &world{t: t, dsn: devstacktest.Database(t), brokers: devstacktest.Kafka(t), topic: devstacktest.Name(t), group: devstacktest.Name(t)}
	w.plan.failures = make(map[int]int)
	w.plan.calls = make(map[int]int)
	migrate(t, w.dsn)
	w.pool = w.newPool()
	w.exec(`create table effects (id bigint generated always as identity, key text, n integer, at timestamptz default clock_timestamp())`)
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.client = client
	created, err := kadm.NewClient(client).CreateTopic(t.Context(), partitions, -1, nil, w.topic)
	if err != nil || created.Err != nil {
		t.Fatalf("make topic: %v, %v", err, created.Err)
	}
	return w
}

func (w *world) newPool() *pgxpool.Pool {
	w.t.Helper()
	pool, err := pgxpool.New(w.t.Context(), w.dsn+dsnOption(w.dsn, "pool_max_conns=16"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(pool.Close)
	return pool
}

func dsnOption(dsn, option string) string {
	switch {
	case !strings.Contains(dsn, "://"):
		return " " + option
	case strings.Contains(dsn, "?"):
		return "&" + option
	default:
		return "?" + option
	}
}

func migrate(t *testing.T, dsn string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config) // goose's own way to open sets a variable of its package
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, schema.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// A plan says which events fail, and counts the calls of their handler.
type plan struct {
	mu       sync.Mutex
	failures map[int]int // by number: how often its handler is still to fail
	calls    map[int]int
	before   func(ctx context.Context, n int) // nil, or called by each handler first
}

func (p *plan) fail(n, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures[n] = times
}

func (p *plan) called(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[n]
}

func (p *plan) call(ctx context.Context, n int) error {
	p.mu.Lock()
	p.calls[n]++
	fails := p.failures[n] > 0
	if fails {
		p.failures[n]--
	}
	before := p.before
	p.mu.Unlock()
	if before != nil {
		before(ctx, n)
	}
	if fails {
		return fmt.Errorf("planned failure of event %d", n)
	}
	return nil
}

func (w *world) typed() outbox.Typed[moved] {
	return outbox.Typed[moved]{Name: "Moved", Topic: w.topic, AggregateType: "thing"}
}

// config is that of the world's inboxes: one attempt, and quick.
func (w *world) config() inbox.Config {
	return inbox.Config{
		Brokers: w.brokers, Group: w.group, Topics: []string{w.topic}, Pool: w.pool,
		MaxAttempts: 1, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, Timeout: 30 * time.Second,
		CommitEvery: 20 * time.Millisecond, SessionTimeout: 6 * time.Second, Window: -1, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	}
}

// handle is the world's handler: it fails by plan, and then notes its event.
func (w *world) handle(ctx context.Context, tx pgx.Tx, e inbox.Received[moved]) error {
	if _, err := tx.Exec(ctx, "insert into effects (key, n) values ($1, $2)", e.Subject, e.Value.N); err != nil {
		return err
	}
	return w.plan.call(ctx, e.Value.N)
}

// start runs an inbox with the world's handler until the function it gives is
// called, which waits for its end, or the test ends.
func (w *world) start(cfg inbox.Config) (stop func()) {
	w.t.Helper()
	in, err := inbox.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := inbox.Handle(in, w.typed(), w.handle); err != nil {
		w.t.Fatal(err)
	}
	return w.run(in)
}

func (w *world) run(in *inbox.Inbox) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run = %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// event gives the record of event n of the aggregate key.
func (w *world) event(key string, n int) *kgo.Record {
	payload, err := json.Marshal(moved{N: n})
	if err != nil {
		w.t.Fatal(err)
	}
	return cloudevent.Record(w.topic, &cloudevent.Event{
		ID: outbox.NewID().String(), Source: "test", Type: "Moved", Subject: key, Time: time.Now().UTC().Truncate(time.Microsecond),
		AggregateType: "thing", Data: payload, Headers: []cloudevent.Header{{Name: "userId", Value: "u" + strconv.Itoa(n)}},
	})
}

func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	if err := w.client.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// wait waits for a query to give true.
func (w *world) wait(what, sql string, args ...any) {
	w.t.Helper()
	devstacktest.Wait(w.t, what, limit, func() bool { return w.is(sql, args...) })
}

func (w *world) is(sql string, args ...any) (yes bool) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql, args...).Scan(&yes); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return yes
}

// effects gives the numbers of the events of key that have had their effect,
// in the order of the effects.
func (w *world) effects(key string) []int {
	w.t.Helper()
	return collect[int](w, "select n from effects where key = $1 order by id", key)
}

func collect[T any](w *world, sql string, args ...any) []T {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), sql, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func (w *world) letters() inbox.DeadLetters { return inbox.DeadLetters{DB: w.pool} }

// list gives all letters of the world.
func (w *world) list(filter inbox.Filter) []inbox.Letter {
	w.t.Helper()
	filter.Group = w.group
	page, err := w.letters().List(w.t.Context(), filter, 10_000, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return page.Letters
}

func (w *world) redrive(r inbox.Redrive) inbox.Redriven {
	w.t.Helper()
	done, err := w.letters().Redrive(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

// settled waits until every event of the topic is handled or among the dead
// letters, and no redrive is under way.
func (w *world) settled(events int) {
	w.t.Helper()
	w.wait("every event to be handled or dead, and every redrive to end",
		`select (select count(*) from inbox where consumer_group = $1) + (select count(*) from inbox_dead where consumer_group = $1) = $2
			and not exists (select from inbox_dead where consumer_group = $1 and redrive_at is not null)`, w.group, events)
}

func equal(t testing.TB, what string, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}
