package relay_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay"
)

// pack gives events as an envelope, by hand: what stands in the log is what the
// tests say, whatever outbox.Writer does. Each event has one header at most,
// which then needs no order.
func pack(events ...outbox.Event) []byte {
	b := envelope.AppendStart(nil)
	var previous *envelope.Event
	for _, e := range events {
		next := &envelope.Event{
			ID: e.ID, Topic: e.Topic, AggregateType: e.AggregateType, AggregateID: e.AggregateID, Type: e.Type,
			AggregateVersion: e.AggregateVersion, Payload: e.Payload,
		}
		for name, value := range e.Headers {
			next.Headers = append(next.Headers, envelope.Header{Name: name, Value: value})
		}
		b = envelope.AppendEvent(b, previous, next)
		previous = next
	}
	return b
}

const (
	insertPacked = `insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload) values ($1, '', '', '', 'walpost.envelope', $2)`
	emit         = `select pg_logical_emit_message(true, $1, timestamptz_send(now()) || $2::bytea)::text`
)

// A script is one transaction, written step by step.
type script struct {
	t  testing.TB
	tx pgx.Tx
}

func (s script) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.tx.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s script) write(mode outbox.Mode, events ...outbox.Event) {
	s.t.Helper()
	if err := (outbox.Writer{Mode: mode}).Write(s.t.Context(), s.tx, events...); err != nil {
		s.t.Fatal(err)
	}
}

func (s script) row(e outbox.Event) { s.write(outbox.Rows, e) }

func (s script) packed(events ...outbox.Event) {
	s.t.Helper()
	s.exec(insertPacked, outbox.NewID(), pack(events...))
}

func (s script) wal(events ...outbox.Event) {
	s.t.Helper()
	s.exec(emit, outbox.DefaultPrefix, pack(events...))
}

// copy writes events by COPY, which makes one record of the log for them all.
func (s script) copy(events ...outbox.Event) {
	s.t.Helper()
	var rows [][]any
	for _, e := range events {
		rows = append(rows, []any{[16]byte(e.ID), e.Topic, e.AggregateType, e.AggregateID, e.AggregateVersion, e.Type, e.Payload, e.Headers})
	}
	columns := []string{"id", "topic", "aggregate_type", "aggregate_id", "aggregate_version", "type", "payload", "headers"}
	if _, err := s.tx.CopyFrom(s.t.Context(), pgx.Identifier{"outbox"}, columns, pgx.CopyFromRows(rows)); err != nil {
		s.t.Fatal(err)
	}
}

// transaction commits what steps do, and gives its time.
func (f *fixture) transaction(t testing.TB, steps func(script)) (at time.Time) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), f.conn, func(tx pgx.Tx) error {
		steps(script{t, tx})
		return tx.QueryRow(t.Context(), `select now()`).Scan(&at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return at.UTC()
}

// numbered gives a maker of events with versions 1, 2, 3, …: the order in
// which they are to come. All have an id and a header.
func (f *fixture) numbered() (next func() outbox.Event, made *[]outbox.Event) {
	made = new([]outbox.Event)
	return func() outbox.Event {
		e := f.event("42", int64(len(*made)+1))
		e.ID = outbox.NewID()
		e.Headers = map[string]string{outbox.HeaderRequestID: "r-" + fmt.Sprint(e.AggregateVersion%2)}
		*made = append(*made, e)
		return e
	}, made
}

// TestAllThreeModesInOneStream mixes rows, packed rows and messages in one
// transaction with what must not come: rolled back savepoints and
// transactions, and messages of others; on every PostgreSQL, since each has its
// own way with messages.
func TestAllThreeModesInOneStream(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) { allThreeModes(t, fixtureOn(t, devstacktest.DatabaseOf(t, version))) })
	}
}

func allThreeModes(t *testing.T, f *fixture) {
	f.config.TopicPartitions = 1
	next, made := f.numbered()
	lost := func() outbox.Event { return f.event("rolled back", 1) }
	steps := func(s script) {
		s.exec(`select pg_logical_emit_message(true, 'another.extension', 'x')`)
		s.row(next())
		s.packed(next())
		s.exec(`savepoint a`)
		s.row(lost())
		s.packed(lost(), lost())
		s.wal(lost())
		s.exec(`rollback to savepoint a`)
		s.wal(next(), next())
		s.write(outbox.Packed, next(), next())
		s.write(outbox.WAL, next(), next())
		s.exec(`select pg_logical_emit_message(false, 'another.extension', 'x')`)
		s.packed(next(), next(), next())
		// A row directly behind a message, on another side of a savepoint:
		// PostgreSQL sends the two in either order.
		s.exec(`savepoint b`)
		s.wal(next())
		s.exec(`release savepoint b`)
		s.row(next())
		s.wal(next())
		s.exec(`savepoint c`)
		s.row(next())
		s.wal(next(), next())
		s.exec(`release savepoint c`)
		s.packed(next(), next())
		s.wal(next())
		s.exec(`savepoint d`)
		s.copy(next(), next(), next())
		s.wal(next())
	}
	stop := f.start(t)
	first := f.transaction(t, steps)
	perTransaction := len(*made)
	tx, err := f.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rolledBack := script{t, tx}
	rolledBack.row(lost())
	rolledBack.packed(lost())
	rolledBack.wal(lost())
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.records(t, perTransaction)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	second := f.transaction(t, steps)
	stop = f.start(t)
	records := f.records(t, len(*made))
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	var commit string
	for i, r := range records {
		got, err := cloudevent.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		e, index, at := (*made)[i], i%perTransaction, first
		if i >= perTransaction {
			at = second
		}
		if index == 0 {
			commit = got.Position[:strings.LastIndexByte(got.Position, '/')]
		}
		want := cloudevent.Event{
			ID: e.ID.String(), Source: f.config.Source, Type: e.Type, Subject: e.AggregateID, Time: at, ContentType: "application/json",
			Sequence: int64(i + 1), AggregateType: e.AggregateType, AggregateVersion: e.AggregateVersion,
			Position: fmt.Sprintf("%s/%d", commit, index),
			Headers:  []cloudevent.Header{{Name: outbox.HeaderRequestID, Value: e.Headers[outbox.HeaderRequestID]}},
			Data:     e.Payload,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("record %d, -want +got:\n%s", i, diff)
		}
		if names, wantNames := headerNames(r), headerNames(records[0]); !slices.Equal(names, wantNames) || string(r.Key) != e.AggregateID || !r.Timestamp.Equal(at.Truncate(time.Millisecond)) {
			t.Errorf("record %d has key %q, time %v and headers %q, want %q, %v and %q as a row's", i, r.Key, r.Timestamp, names, e.AggregateID, at, wantNames)
		}
	}
}

func headerNames(r *kgo.Record) (names []string) {
	for _, h := range r.Headers {
		names = append(names, h.Key)
	}
	return names
}

// A stopper ends a context when the n-th record of a topic is acknowledged,
// before the relay hears of it.
type stopper struct {
	topic string
	n     int
	stop  context.CancelFunc
}

func (s *stopper) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	if err != nil || r.Topic != s.topic {
		return
	}
	if s.n--; s.n == 0 {
		s.stop()
	}
}

// TestAStopInsideATransaction stops the relay between events of one envelope,
// several times. Nothing comes again, although PostgreSQL sends the transaction
// again from its beginning, and nothing is missing.
func TestAStopInsideATransaction(t *testing.T) {
	f := newFixture(t)
	f.config.TopicPartitions = 1
	f.config.MaxBufferBytes = 1 << 20
	stop := f.start(t) // makes the slot
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	next, made := f.numbered()
	large := func() outbox.Event {
		e := next()
		e.Payload = fmt.Appendf(nil, `{"note":%q}`, strings.Repeat("x", 10_000))
		return e
	}
	events := func(n int) (list []outbox.Event) {
		for range n {
			list = append(list, large())
		}
		return list
	}
	f.transaction(t, func(s script) {
		s.row(large())
		s.packed(events(300)...)
		s.wal(events(300)...)
		s.row(large())
	})
	for _, n := range []int{10, 350} {
		// A full buffer holds a hundred of them: the end is far away.
		config := f.config
		ctx, cancel := context.WithCancel(t.Context())
		config.Kafka = []kgo.Opt{kgo.WithHooks(&stopper{f.topic, n, cancel})}
		r, err := relay.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	f.config.MaxBufferBytes = 0
	stop = f.start(t)
	f.write(t, next())
	records := f.read(t, len(*made))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, e := range records {
		if e.Sequence != int64(i+1) {
			t.Fatalf("record %d has sequence %d", i, e.Sequence)
		}
		want := (*made)[i]
		index := e.Position[strings.LastIndexByte(e.Position, '/')+1:]
		if wantIndex := fmt.Sprint((e.Sequence - 1) % int64(len(*made)-1)); e.ID != want.ID.String() || e.AggregateVersion != e.Sequence || index != wantIndex {
			t.Fatalf("record %d has sequence %d, id %s, version %d and index %s; want %v, %d and %s", i, e.Sequence, e.ID, e.AggregateVersion, index, want.ID, e.Sequence, wantIndex)
		}
	}
}
