package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
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
	"github.com/seed-048de892/walpost/relay/recovery"
)

// A world is a database with an outbox, topics of the test's own, and what was
// committed.
type world struct {
	t      *testing.T
	dsn    string
	conn   *pgx.Conn
	kafka  *kgo.Client
	config relay.Config
	topic  string
	other  string // a second topic
	since  time.Time

	onPublished func(int64) // of the recovery's progress

	mu        sync.Mutex
	committed map[string]struct{} // ids
	times     map[int64]outbox.ID // of versions, by write
}

func newWorld(t *testing.T, dsn string) *world {
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
	kafka, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	return &world{
		t: t, dsn: dsn, conn: conn, kafka: kafka, topic: name + ".created", other: name + ".updated",
		committed: make(map[string]struct{}), times: make(map[int64]outbox.ID),
		config: relay.Config{
			Postgres: dsn, Brokers: brokers, Source: name, PositionsTopic: "_" + name + ".positions", SenderTimeout: 3 * time.Second,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	}
}

func (w *world) relay() *relay.Relay {
	r, err := relay.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// start runs the relay until stop is called, which gives what Run returned.
func (w *world) start() (stop func() error) {
	w.t.Helper()
	r := w.relay()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(w.t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	return func() error { cancel(); return <-done }
}

// program is the relay as a process, which can be killed.
func (w *world) program() *devstacktest.Program {
	w.t.Helper()
	bin := devstacktest.Build(w.t, "cmd/relay")
	return devstacktest.NewProgram(w.t, nil, filepath.Join(bin, "relay"), "run", "--postgres", w.dsn, "--brokers", strings.Join(w.config.Brokers, ","),
		"--source", w.config.Source, "--positions-topic", w.config.PositionsTopic, "--delivery", string(w.config.Delivery), "--ops-listen", "127.0.0.1:0", "--sender-timeout", "3s")
}

func (w *world) event(id string, version int64) outbox.Event {
	e := outbox.Event{
		ID: outbox.NewID(), Topic: w.topic, AggregateType: "user", AggregateID: id, AggregateVersion: version, Type: "UserCreated",
		Headers: map[string]string{"n": fmt.Sprint(version)}, Payload: fmt.Appendf(nil, `{"id":%q,"version":%d}`, id, version),
	}
	w.mu.Lock()
	w.times[version] = e.ID
	w.mu.Unlock()
	return e
}

func (w *world) write(events ...outbox.Event) { w.t.Helper(); w.writeAs(outbox.Rows, events...) }

func (w *world) writeAs(mode outbox.Mode, events ...outbox.Event) {
	w.t.Helper()
	if err := w.commit(w.t.Context(), w.conn, mode, events, true); err != nil {
		w.t.Fatal(err)
	}
}

var errRollback = errors.New("rolled back")

func (w *world) commit(ctx context.Context, conn *pgx.Conn, mode outbox.Mode, events []outbox.Event, keep bool) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := (outbox.Writer{Mode: mode}).Write(ctx, tx, events...); err != nil {
			return err
		}
		if !keep {
			return errRollback
		}
		return nil
	})
	if errors.Is(err, errRollback) {
		return nil
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range events {
		w.committed[events[i].ID.String()] = struct{}{}
	}
	return nil
}

// load has n writers write until stop is called, each for keys of its own:
// rows and packed rows into two topics, and some of it rolled back.
func (w *world) load(n int) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			conn, err := pgx.Connect(w.t.Context(), w.dsn)
			if err != nil {
				w.t.Error(err)
				return
			}
			defer func() { _ = conn.Close(context.Background()) }()
			random := rand.New(rand.NewPCG(1, uint64(i)))
			versions := make(map[string]int64)
			for ctx.Err() == nil {
				key := fmt.Sprintf("%d-%d", i, random.IntN(5))
				events := make([]outbox.Event, 1+random.IntN(4))
				for j := range events {
					events[j] = w.event(key, versions[key]+int64(j)+1)
				}
				if random.IntN(3) == 0 {
					for j := range events {
						events[j].Topic = w.other
					}
				}
				mode := outbox.Rows
				if random.IntN(3) == 0 {
					mode = outbox.Packed
				}
				keep := random.IntN(10) > 0
				if err := w.commit(w.t.Context(), conn, mode, events, keep); err != nil {
					w.t.Error(err)
					return
				}
				if keep {
					versions[key] += int64(len(events))
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

func (w *world) committedCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.committed)
}

func (w *world) waitCommitted(n int) {
	w.t.Helper()
	devstacktest.Wait(w.t, fmt.Sprintf("%d events to be committed", n), 2*time.Minute, func() bool { return w.committedCount() >= n })
}

// ends gives how many offsets each topic has, summed.
func (w *world) ends() int64 {
	admin := kadm.NewClient(w.kafka)
	topics, err := admin.ListTopics(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	own := slices.DeleteFunc(topics.Names(), func(name string) bool { return name != w.topic && name != w.other })
	if len(own) == 0 {
		return 0
	}
	listed, err := admin.ListEndOffsets(w.t.Context(), own...)
	if err != nil {
		w.t.Fatal(err)
	}
	var n int64
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			n += o.Offset
		}
	})
	return n
}

func (w *world) waitRecords(n int64) {
	w.t.Helper()
	devstacktest.Wait(w.t, fmt.Sprintf("%d records", n), 2*time.Minute, func() bool { return w.ends() >= n })
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// waitSlot waits until a relay streams.
func (w *world) waitSlot() {
	w.t.Helper()
	devstacktest.Wait(w.t, "the slot to be read", time.Minute, func() bool {
		var streams bool // a slot that is being made is active too
		err := w.conn.QueryRow(w.t.Context(), `select exists (select from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
			where s.database = current_database() and r.state in ('catchup', 'streaming'))`).Scan(&streams)
		return err == nil && streams
	})
}

// dropSlot drops the slot as soon as nobody reads it.
func (w *world) dropSlot() {
	w.t.Helper()
	devstacktest.Wait(w.t, "the slot to be dropped", time.Minute, func() bool {
		_, err := w.conn.Exec(w.t.Context(), `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()`)
		return err == nil
	})
}

func (w *world) recovery(apply bool) *recovery.Recovery {
	w.t.Helper()
	log := slog.New(progress{slog.NewTextHandler(w.t.Output(), nil), w})
	r, err := recovery.New(recovery.Config{Relay: w.config, Apply: apply, Since: w.since, Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) tryRecover(apply bool) error {
	w.t.Helper()
	_, err := w.recovery(apply).Run(w.t.Context())
	return err
}

func (w *world) recover(apply bool) recovery.Report {
	w.t.Helper()
	report, err := w.recovery(apply).Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = report.WriteTo(w.t.Output())
	return report
}

// progress shows the test how much is published.
type progress struct {
	slog.Handler
	w *world
}

func (p progress) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "events" && p.w.onPublished != nil {
			p.w.onPublished(a.Value.Int64())
		}
		return true
	})
	return p.Handler.Handle(ctx, r)
}

// produce puts an event into Kafka as the relay would.
func (w *world) produce(e outbox.Event, sequence int64) {
	w.t.Helper()
	record := cloudevent.Record(e.Topic, &cloudevent.Event{
		ID: e.ID.String(), Source: w.config.Source, Type: e.Type, Subject: e.AggregateID, Time: time.Now(), Sequence: sequence,
		AggregateType: e.AggregateType, AggregateVersion: e.AggregateVersion, Position: "1/0/1/1", Data: e.Payload,
	})
	if err := w.kafka.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// deleteRecords removes the first n records of every partition, as retention does.
func (w *world) deleteRecords(n int64) {
	w.t.Helper()
	offsets := make(kadm.Offsets)
	listed, err := kadm.NewClient(w.kafka).ListEndOffsets(w.t.Context(), w.topic)
	if err != nil {
		w.t.Fatal(err)
	}
	listed.Each(func(o kadm.ListedOffset) { offsets.AddOffset(o.Topic, o.Partition, min(n, o.Offset), -1) })
	deleted, err := kadm.NewClient(w.kafka).DeleteRecords(w.t.Context(), offsets)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// created is the created_at of the event with this version.
func (w *world) created(version int64) (at time.Time) {
	w.t.Helper()
	if err := w.conn.QueryRow(w.t.Context(), "select created_at from outbox where aggregate_version = $1", version).Scan(&at); err != nil {
		w.t.Fatal(err)
	}
	return at
}

// everything is what a dry run must leave as it is.
func (w *world) everything() string {
	w.t.Helper()
	var b strings.Builder
	var slots, objects string
	err := w.conn.QueryRow(w.t.Context(), `select
		(select coalesce(string_agg(slot_name || confirmed_flush_lsn, ' '), '') from pg_replication_slots where database = current_database()),
		(select count(*) || ' ' || md5(string_agg(c::text, ',' order by oid)) from pg_class c where relnamespace in ('public'::regnamespace))
			|| (select count(*) from outbox) || (select count(*) from pg_publication)`).Scan(&slots, &objects)
	if err != nil {
		w.t.Fatal(err)
	}
	admin := kadm.NewClient(w.kafka)
	topics, err := admin.ListTopics(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	listed, err := admin.ListEndOffsets(w.t.Context(), w.topic, w.config.PositionsTopic)
	if err != nil {
		w.t.Fatal(err)
	}
	own := slices.DeleteFunc(topics.Names(), func(name string) bool { return !strings.Contains(name, w.config.Source) })
	fmt.Fprintf(&b, "slots %q, database %q, topics %q,", slots, objects, own)
	for _, o := range listed.Offsets().Sorted() {
		fmt.Fprintf(&b, " %s/%d %d", o.Topic, o.Partition, o.At)
	}
	return b.String()
}

// verify reads all of Kafka once every committed event has come, and checks it
// against what was committed: each id once, the sequence dense from first on,
// and each key in the order of its versions within a topic.
func (w *world) verify(first int64) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.config.Brokers...), kgo.ConsumeTopics(w.topic, w.other), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	sequences, ids, versions := make(map[int64]string), make(map[string]int), make(map[string]int64)
	want := w.committedCount()
	for settled := false; ; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			if !settled {
				w.t.Fatalf("%d of %d committed events came: %v", len(ids), want, err)
			}
			break
		}
		for _, r := range fetches.Records() {
			e, err := cloudevent.Decode(r)
			if err != nil {
				w.t.Fatal(err)
			}
			if was, ok := sequences[e.Sequence]; ok {
				w.t.Errorf("sequence %d: %s and %s", e.Sequence, was, e.ID)
			}
			sequences[e.Sequence] = e.ID
			ids[e.ID]++
			key := r.Topic + " " + string(r.Key)
			if e.AggregateVersion <= versions[key] {
				w.t.Errorf("%s: version %d behind %d", key, e.AggregateVersion, versions[key])
			}
			versions[key] = e.AggregateVersion
			if got, want := string(e.Data), fmt.Sprintf(`{"id":%q,"version":%d}`, r.Key, e.AggregateVersion); got != want || e.Get("n") != fmt.Sprint(e.AggregateVersion) && e.Get("n") != "" {
				w.t.Errorf("event %s holds %s and header %q, want %s", e.ID, got, e.Get("n"), want)
			}
		}
		if len(ids) >= want && !settled {
			settled = true                                                  // and what is too much comes within two seconds
			ctx, cancel = context.WithTimeout(w.t.Context(), 2*time.Second) //nolint:fatcontext // made once, and not from itself
			defer cancel()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.committed {
		if ids[id] != 1 {
			w.t.Errorf("committed event %s is in Kafka %d times", id, ids[id])
		}
	}
	for id := range ids {
		if _, ok := w.committed[id]; !ok {
			w.t.Errorf("event %s was never committed", id)
		}
	}
	for n := first; n < first+int64(len(sequences)); n++ {
		if _, ok := sequences[n]; !ok {
			w.t.Errorf("sequence %d is missing", n)
			break
		}
	}
}
