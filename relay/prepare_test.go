package relay

import (
	"context"
	"log/slog"
	"slices"
	"testing"

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
