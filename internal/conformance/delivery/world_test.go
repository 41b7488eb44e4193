package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
)

// patience bounds every wait.
const patience = 90 * time.Second

// A world is a database with an outbox, and a topic of the test's own with
// three partitions.
type world struct {
	t      *testing.T
	config relay.Config
	topic  string

	mu      sync.Mutex
	written int // events committed
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: starts real servers")
	}
	dsn, brokers, name := devstacktest.Database(t), devstacktest.Kafka(t), devstacktest.Name(t)
	w := &world{t: t, topic: name + ".moved", config: relay.Config{
		Postgres: dsn, Brokers: brokers, Source: name, PositionsTopic: "_" + name + ".positions",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	conn := w.connect()
	if _, err := conn.Exec(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	stop := w.start(w.config) // makes the slot
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.config.Postgres)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(w.t.Context())) })
	return conn
}

// with gives the world's configuration changed.
func (w *world) with(change func(*relay.Config)) relay.Config {
	c := w.config
	change(&c)
	return c
}

func exactlyOnce(c *relay.Config) { c.Delivery = relay.ExactlyOnce }

// launch runs a relay; stop ends it and gives what Run returned.
func (w *world) launch(config relay.Config) (r *relay.Relay, stop func() error) {
	w.t.Helper()
	r, err := relay.New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, sync.OnceValue(func() error { cancel(); return <-done })
}

// start runs a relay and waits until it streams.
func (w *world) start(config relay.Config) (stop func() error) {
	w.t.Helper()
	r, stop := w.launch(config)
	devstacktest.Wait(w.t, "the relay to stream", patience, func() bool { return r.Ready(w.t.Context()) == nil })
	return stop
}

// write commits n events in one transaction, of nine keys in turn.
func (w *world) write(conn *pgx.Conn, n int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []outbox.Event
	for i := range n {
		number := w.written + i + 1
		events = append(events, outbox.Event{
			Topic: w.topic, AggregateType: "stone", AggregateID: fmt.Sprint(number % 9), AggregateVersion: int64(number), Type: "StoneMoved",
			Payload: fmt.Appendf(nil, `{"number":%d,"note":"0123456789012345678901234567890123456789"}`, number),
		})
	}
	err := pgx.BeginFunc(w.t.Context(), conn, func(tx pgx.Tx) error { return outbox.Write(w.t.Context(), tx, events...) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.written += n
}

// load writes transactions of one to forty events until stop is called.
func (w *world) load() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	conn := w.connect()
	var writer sync.WaitGroup
	writer.Go(func() {
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for i := 0; ; i++ {
			select {
			case <-pace.C:
				w.write(conn, 1+i*7%40)
			case <-ctx.Done():
				return
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); writer.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// A seen is a record as a consumer sees it.
type seen struct {
	id        string
	sequence  int64
	position  string
	number    int64 // the event's, from 1 in the order of commits
	partition int32
}

// count is how many events are committed now.
func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written
}

// published writes an event and waits until it is in Kafka.
func (w *world) published() {
	w.t.Helper()
	w.write(w.connect(), 1)
	w.records(kgo.ReadUncommitted())
}

// records gives the records of the topic, those of each partition in order,
// to its end of when the last event written by now is among them. isolation
// says which are seen.
func (w *world) records(isolation kgo.IsolationLevel) []seen {
	w.t.Helper()
	written := w.count()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.config.Brokers...), kgo.ConsumeTopics(w.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var list []seen
	have, next := make(map[int64]bool), make(map[int32]int64)
	fetch := func() {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			w.t.Fatalf("read %d of %d events: %v", len(have), written, err)
		}
		for _, r := range fetches.Records() {
			next[r.Partition] = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			e, err := cloudevent.Decode(r)
			if err != nil {
				w.t.Fatal(err)
			}
			have[e.AggregateVersion] = true
			list = append(list, seen{e.ID, e.Sequence, e.Position, e.AggregateVersion, r.Partition})
		}
	}
	for len(have) < written {
		fetch()
	}
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, w.topic)
	if isolation == kgo.ReadCommitted() {
		ends, err = admin.ListCommittedOffsets(ctx, w.topic)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for partition, end := range ends[w.topic] {
		for next[partition] < end.Offset {
			fetch()
		}
	}
	return list
}

// once checks that each event is among records once, with the sequence of its
// place in the order of commits, and behind those of its key before it.
func (w *world) once(records []seen) {
	w.t.Helper()
	last := make(map[int32]int64)
	for _, r := range records {
		if r.sequence != r.number {
			w.t.Fatalf("event %d has sequence %d", r.number, r.sequence)
		}
		if r.sequence <= last[r.partition] {
			w.t.Fatalf("sequence %d of partition %d comes behind %d", r.sequence, r.partition, last[r.partition])
		}
		last[r.partition] = r.sequence
	}
	if len(records) != w.written {
		w.t.Errorf("%d records for %d events", len(records), w.written)
	}
}

// repeats checks that each event is among records, with the sequence of its
// place in the order of commits every time, and gives the sequences of those
// that come again.
func (w *world) repeats(records []seen) (again []int64) {
	w.t.Helper()
	ids := make(map[int64]string)
	for _, r := range records {
		switch id, known := ids[r.number]; {
		case r.sequence != r.number:
			w.t.Fatalf("event %d has sequence %d", r.number, r.sequence)
		case known && id != r.id:
			w.t.Fatalf("event %d comes again as %s, it was %s", r.number, r.id, id)
		case known:
			again = append(again, r.sequence)
		}
		ids[r.number] = r.id
	}
	slices.Sort(again)
	return again
}
