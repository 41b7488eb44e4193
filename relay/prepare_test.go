package relay

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// A diary is what the parts of an outside write down as they are asked.
type diary struct{ calls []string }

func (d *diary) note(call string) { d.calls = append(d.calls, call) }

type diaryDatabase struct {
	database
	*diary
	confirmed lsn.Pos
}

func (d diaryDatabase) lock(context.Context) error { d.note("lock"); return nil }

func (d diaryDatabase) inspect(context.Context) (slot.State, error) {
	d.note("inspect")
	return slot.State{SystemID: "1", Exists: true, Published: true, Confirmed: d.confirmed}, nil
}

func (d diaryDatabase) stream(context.Context, lsn.Pos) (stream, error) {
	d.note("take the slot")
	return &diaryStream{}, nil
}

// A diaryStream gives messages, and then that it was interrupted.
type diaryStream struct {
	stream
	messages []wal.Message
}

func (d *diaryStream) Close() error { return nil }

func (d *diaryStream) Next() (wal.Message, error) {
	if len(d.messages) == 0 {
		return wal.Message{}, wal.ErrInterrupted
	}
	m := d.messages[0]
	d.messages = d.messages[1:]
	return m, nil
}

type diaryPositions struct {
	*diary
	stored *[]position.Position // by the call of Load, the last one again and again
}

func (d diaryPositions) Prepare(context.Context) error { return nil }

func (d diaryPositions) Load(context.Context) (position.Position, bool, error) {
	d.note("load")
	p := (*d.stored)[0]
	if len(*d.stored) > 1 {
		*d.stored = (*d.stored)[1:]
	}
	return p, true, nil
}

func (d diaryPositions) Save(context.Context, position.Position) error { d.note("save"); return nil }

func (d diaryPositions) Record(position.Position) (*kgo.Record, error) {
	return &kgo.Record{Topic: "positions"}, nil
}

type diaryProducer struct {
	producer
	*diary
}

func (d diaryProducer) ProducerID(context.Context) (int64, int16, error) {
	d.note("fence")
	return 1, 1, nil
}

func (d diaryProducer) BeginTransaction() error { d.note("begin"); return nil }

func (d diaryProducer) Produce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	d.note("produce " + r.Topic)
	promise(r, nil)
}

func (d diaryProducer) Flush(context.Context) error { d.note("flush"); return nil }

func (d diaryProducer) EndTransaction(_ context.Context, how kgo.TransactionEndTry) error {
	if how == kgo.TryCommit {
		d.note("commit")
	}
	return nil
}

type diaryOutside struct {
	outside
	*diary
}

func (d diaryOutside) fence(context.Context, string) error { d.note("fence"); return nil }

// TestWhatCountsIsReadBehindTheFence gives the order of a start. The position
// that counts is read when no other relay can store one any more: with the slot
// taken, and the producer of transactions fenced.
func TestWhatCountsIsReadBehindTheFence(t *testing.T) {
	t.Parallel()
	plain := position.Position{SystemID: "1", Slot: "s", Generation: 1, Commit: 90, End: 100, Sequence: 7}
	inTransaction, later := plain, plain
	inTransaction.Transactional = true
	later.Transactional, later.Commit, later.End, later.Sequence = true, 120, 130, 8
	start := []string{"lock", "inspect", "load", "take the slot", "inspect"}
	tests := map[string]struct {
		delivery  Delivery
		stored    []position.Position
		confirmed lsn.Pos
		want      []string // behind start
		sequence  int64    // 0: refused
	}{
		"at least once":                       {AtLeastOnce, []position.Position{plain}, 100, []string{"load"}, 7},
		"at least once, after transactions":   {AtLeastOnce, []position.Position{inTransaction}, 100, []string{"load", "fence", "load"}, 7},
		"committed before the fence":          {AtLeastOnce, []position.Position{inTransaction, inTransaction, later}, 100, []string{"load", "fence", "load"}, 8},
		"exactly once":                        {ExactlyOnce, []position.Position{inTransaction}, 100, []string{"fence", "load"}, 7},
		"exactly once, committed meanwhile":   {ExactlyOnce, []position.Position{inTransaction, later}, 100, []string{"fence", "load"}, 8},
		"exactly once, after at least once":   {ExactlyOnce, []position.Position{plain}, 100, []string{"fence", "load", "begin", "produce positions", "flush", "commit"}, 7},
		"exactly once, a position taken back": {ExactlyOnce, []position.Position{later, plain}, 100, []string{"fence", "load"}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := new(diary)
			s := &session{
				cfg: Config{Slot: "s", Delivery: tt.delivery}, log: slog.New(slog.DiscardHandler), outside: diaryOutside{diary: d},
				database: diaryDatabase{diary: d, confirmed: tt.confirmed}, producer: diaryProducer{diary: d}, positions: diaryPositions{d, &tt.stored},
			}
			err := s.prepare(t.Context())
			if refused := err != nil; refused != (tt.sequence == 0) {
				t.Fatalf("prepare: %v, want it refused: %t", err, tt.sequence == 0)
			}
			if want := append(slices.Clone(start), tt.want...); !slices.Equal(d.calls, want) {
				t.Errorf("prepare did %q, want %q", d.calls, want)
			}
			if s.sequence != tt.sequence {
				t.Errorf("goes on behind sequence %d, want %d", s.sequence, tt.sequence)
			}
		})
	}
}

// TestAKeepaliveInsideATransactionDoesNotCount reads one while records of a
// transaction are in Kafka and more are to come: a position behind it would say
// that all of them are.
func TestAKeepaliveInsideATransactionDoesNotCount(t *testing.T) {
	t.Parallel()
	for _, open := range []*transaction{nil, {commit: 50}} {
		metrics, err := newMetrics(nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &session{metrics: metrics, brake: new(brake), open: open, stream: &diaryStream{messages: []wal.Message{{End: 100}}}, told: make(chan struct{}, 1)}
		s.publisher = &atLeastOnce{s: s}
		if err := s.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := lsn.Pos(100)
		if open != nil {
			want = 0
		}
		if got, _ := s.tracker.reached(); got.end != want {
			t.Errorf("inside a transaction: %t; reached %v, want %v", open != nil, got.end, want)
		}
	}
}

// TestAnExpiredLeaseStoresAndBeginsNothing is a relay that wakes from having
// been frozen, with records acknowledged before and more to read.
func TestAnExpiredLeaseStoresAndBeginsNothing(t *testing.T) {
	t.Parallel()
	metrics, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	begin := make([]byte, 21) // of a transaction
	begin[0] = 'B'
	for _, frozen := range []time.Duration{0, time.Hour} {
		d := new(diary)
		s := &session{
			cfg: Config{SenderTimeout: time.Minute}, metrics: metrics, brake: new(brake), told: make(chan struct{}, 1), began: time.Now().Add(-frozen),
			positions: diaryPositions{d, nil}, stream: &diaryStream{messages: []wal.Message{{Data: begin, Start: 1}}},
		}
		a := &atLeastOnce{s: s}
		s.publisher = a
		saved, read := a.save(t.Context(), point{end: 100}), s.read(t.Context())
		if expired := frozen != 0; errors.Is(saved, errExpired) != expired || errors.Is(read, errExpired) != expired || slices.Contains(d.calls, "save") == expired {
			t.Errorf("frozen for %v: stored %q: %v; read: %v", frozen, d.calls, saved, read)
		}
	}
}

// An outage is an outside whose lock is lost with the first question.
type outage struct {
	diaryOutside
	positions diaryPositions
}

type lostDatabase struct {
	diaryDatabase
	opened *waitingStream
}

func (d lostDatabase) stream(context.Context, lsn.Pos) (stream, error) { return d.opened, nil }
func (d lostDatabase) holds(context.Context) error                     { return errors.New("the lock is lost") }

func (d lostDatabase) close(context.Context) error { d.note("close the database"); return nil }

// A waitingStream has no message, and waits until it is interrupted.
type waitingStream struct {
	*diary
	interrupted chan struct{}
}

func (w *waitingStream) Next() (wal.Message, error) {
	<-w.interrupted
	return wal.Message{}, wal.ErrInterrupted
}

func (w *waitingStream) Interrupt()                  { close(w.interrupted) }
func (w *waitingStream) Confirm(lsn.Pos, bool) error { return nil }
func (w *waitingStream) Close() error                { w.note("close the stream"); return nil }

type closingProducer struct{ diaryProducer }

func (p closingProducer) Close() { p.note("close the producer") }

func (o outage) kafka(string, *topics) (producer, positions, *kgo.Client, error) {
	return closingProducer{diaryProducer{diary: o.diary}}, o.positions, nil, nil
}

func (o outage) database(context.Context) (database, error) {
	return lostDatabase{diaryDatabase{diary: o.diary, confirmed: 100}, &waitingStream{o.diary, make(chan struct{})}}, nil
}

// TestALostLockEndsTheProducerFirst loses the lock. What is still on its way to
// Kafka is given up before the relay takes leave of PostgreSQL, which may take
// its time, and no position is stored over another relay's.
func TestALostLockEndsTheProducerFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		metrics, err := newMetrics(nil)
		if err != nil {
			t.Fatal(err)
		}
		d := new(diary)
		stored := []position.Position{{SystemID: "1", Slot: "s", Generation: 1, Commit: 90, End: 100, Sequence: 7}}
		r := &Relay{
			cfg: Config{
				Slot: "s", Delivery: AtLeastOnce, SenderTimeout: 15 * time.Second, StopGrace: time.Minute, MaxBufferBytes: 1 << 20,
				Log: slog.New(slog.DiscardHandler),
			},
			metrics: metrics, outside: outage{diaryOutside{diary: d}, diaryPositions{d, &stored}},
		}
		began := time.Now()
		if err := r.session(t.Context()); err == nil || !strings.Contains(err.Error(), "the lock is lost") {
			t.Errorf("session: %v, want that the lock is lost", err)
		}
		if took := time.Since(began); took > r.cfg.SenderTimeout/2 {
			t.Errorf("it took %v to give up", took)
		}
		want := []string{"lock", "inspect", "load", "inspect", "load", "flush", "close the producer", "close the stream", "close the database"}
		if !slices.Equal(d.calls[:min(len(d.calls), len(want))], want) {
			t.Errorf("the session did %q, want %q", d.calls, want)
		}
	})
}
