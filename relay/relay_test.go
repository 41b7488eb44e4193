package relay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
)

// A fixture is a database with an outbox, and topics of the test's own.
type fixture struct {
	conn   *pgx.Conn
	config relay.Config
	topic  string
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return fixtureOn(t, devstacktest.Database(t))
}

func fixtureOn(t testing.TB, dsn string) *fixture {
	t.Helper()
	brokers, name := devstacktest.Kafka(t), devstacktest.Name(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := conn.Exec(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	return &fixture{conn: conn, topic: name + ".created", config: relay.Config{
		Postgres: dsn, Brokers: brokers, Source: name, PositionsTopic: "_" + name + ".positions",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
}

// start runs the relay until stop is called, which gives what Run returned.
func (f *fixture) start(t testing.TB) (stop func() error) {
	t.Helper()
	r, err := relay.New(f.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	return func() error { cancel(); return <-done }
}

func (f *fixture) write(t testing.TB, events ...outbox.Event) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), f.conn, func(tx pgx.Tx) error { return outbox.Write(t.Context(), tx, events...) })
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) event(id string, version int64) outbox.Event {
	return outbox.Event{
		Topic: f.topic, AggregateType: "user", AggregateID: id, AggregateVersion: version, Type: "UserCreated",
		Payload: fmt.Appendf(nil, `{"id":%q,"version":%d}`, id, version),
	}
}

// read gives the events of the first n records of the topic.
func (f *fixture) read(t *testing.T, n int) []cloudevent.Event {
	t.Helper()
	var events []cloudevent.Event
	for _, r := range f.records(t, n) {
		e, err := cloudevent.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// records gives the first n records of the topic.
func (f *fixture) records(t *testing.T, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.config.Brokers...), kgo.ConsumeTopics(f.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %d records, want %d: %v", len(records), n, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func TestEventsArriveOnceAcrossRestarts(t *testing.T) {
	f := newFixture(t)
	const restarts, perRun = 3, 20
	for run := range restarts {
		stop := f.start(t)
		for i := range perRun / 2 {
			n := int64(run*perRun + 2*i)
			f.write(t, f.event("42", n+1), f.event("42", n+2))
		}
		f.read(t, (run+1)*perRun)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	stop := f.start(t)
	f.write(t, f.event("42", restarts*perRun+1))
	events := f.read(t, restarts*perRun+1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, e := range events { // one key: one partition, in order
		if want := int64(i + 1); e.Sequence != want || e.AggregateVersion != want {
			t.Fatalf("record %d has sequence %d and version %d, want %d", i, e.Sequence, e.AggregateVersion, want)
		}
		if want := fmt.Sprintf(`{"id":"42","version":%d}`, i+1); string(e.Data) != want {
			t.Fatalf("record %d holds %s, want %s", i, e.Data, want)
		}
	}
}

func TestRowsBeforeTheSlotAreRefused(t *testing.T) {
	f := newFixture(t)
	f.write(t, f.event("42", 1))
	gap, ok := errors.AsType[*relay.GapError](f.start(t)())
	if !ok || gap.Hint == "" {
		t.Fatalf("Run did not refuse with a gap and a hint: %v", gap)
	}
	f.config.ExistingRows = relay.SkipRows
	stop := f.start(t)
	f.write(t, f.event("42", 2))
	events := f.read(t, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if events[0].AggregateVersion != 2 || events[0].Sequence != 1 {
		t.Errorf("first record has version %d and sequence %d, want 2 and 1", events[0].AggregateVersion, events[0].Sequence)
	}
}

func TestALostSlotIsNamed(t *testing.T) {
	f := newFixture(t)
	stop := f.start(t)
	f.write(t, f.event("42", 1))
	f.read(t, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var slot string
	if err := f.conn.QueryRow(t.Context(), `select slot_name from pg_replication_slots where database = current_database()`).Scan(&slot); err != nil {
		t.Fatal(err)
	}
	if _, err := f.conn.Exec(t.Context(), `select pg_drop_replication_slot($1)`, slot); err != nil {
		t.Fatal(err)
	}
	if gap, ok := errors.AsType[*relay.GapError](f.start(t)()); !ok {
		t.Fatalf("Run did not report the gap: %v", gap)
	}
	f.config.LostSlot = relay.ContinueOnLoss
	stop = f.start(t)
	f.write(t, f.event("42", 2))
	events := f.read(t, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if events[1].Sequence != 2 || events[1].Position[0] != '2' {
		t.Errorf("after the gap: sequence %d at %s, want 2 in generation 2", events[1].Sequence, events[1].Position)
	}
}

func TestStandbyTakesOver(t *testing.T) {
	f := newFixture(t)
	stop := f.start(t)
	standby, err := relay.New(f.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- standby.Run(ctx) }()
	f.write(t, f.event("42", 1))
	f.read(t, 1)
	if standby.Ready(ctx) == nil {
		t.Error("two relays stream at once")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	devstacktest.Wait(t, "the standby to stream", 30*time.Second, func() bool { return standby.Ready(ctx) == nil })
	f.write(t, f.event("42", 2))
	events := f.read(t, 2)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if events[1].Sequence != 2 {
		t.Errorf("after the takeover: sequence %d, want 2", events[1].Sequence)
	}
}
