package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
)

// exactlyOnce publishes in Kafka transactions of some records and the position
// behind them. While one is ended, which takes Kafka some ten milliseconds, no
// record can be produced; what is read meanwhile waits here, within the budget.
type exactlyOnce struct {
	s *session

	mu    sync.Mutex
	items []item
	since time.Time     // when the first of items was added
	more  chan struct{} // has one when items were added

	// run's, then finish's.
	done   point       // of all transactions
	next   point       // of the open one
	last   *kgo.Record // of next
	open   bool        // a Kafka transaction is
	sent   []sent      // its records
	closed time.Time   // when the last one ended
}

// An item is a record, or the end of a transaction or what the server has sent
// up to, which have none.
type item struct {
	record *kgo.Record
	at     time.Time // of its transaction's commit
	point  point
}

// A sent is what is left of a record until its Kafka transaction ends.
type sent struct {
	topic string
	bytes int // of key and value
	at    time.Time
	span  trace.Span // nil: none
}

func (x *exactlyOnce) add(_ context.Context, t *transaction, r *kgo.Record) {
	x.put(item{record: r, at: t.at, point: point{commit: t.commit, index: t.records - 1, sequence: x.s.sequence}})
}

func (x *exactlyOnce) commit(_ *transaction, end lsn.Pos) { x.put(item{point: point{end: end}}) }
func (x *exactlyOnce) keepalive(end lsn.Pos)              { x.put(item{point: point{end: end}}) }

// interrupted has nothing to do: a position inside the transaction is stored
// with its records.
func (x *exactlyOnce) interrupted(*transaction) {}

func (x *exactlyOnce) put(i item) {
	x.mu.Lock()
	switch n := len(x.items); {
	case n == 0:
		x.since = time.Now()
		x.items = append(x.items, i)
	case i.record == nil && x.items[n-1].record == nil:
		x.items[n-1].point = x.items[n-1].point.reach(i.point) // two ends in a row are one
	default:
		x.items = append(x.items, i)
	}
	x.mu.Unlock()
	select {
	case x.more <- struct{}{}:
	default:
	}
}

// take gives the first items: up to n records and the ends directly behind
// them, and when the first of all was added. They are given in into.
func (x *exactlyOnce) take(into []item, n int) ([]item, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	count := 0
	for count < len(x.items) && (n > 0 || x.items[count].record == nil) {
		if x.items[count].record != nil {
			n--
		}
		count++
	}
	into = append(into[:0], x.items[:count]...)
	rest := copy(x.items, x.items[count:])
	clear(x.items[rest:])
	x.items = x.items[:rest]
	since := x.since
	x.since = time.Now() // of what is left, too late by the time it has waited
	return into, since
}

// run publishes transaction after transaction until ctx ends. What has not been
// put into one by then comes again.
func (x *exactlyOnce) run(ctx, late context.Context) error {
	x.done = x.s.start()
	for {
		if err := x.transaction(ctx, late); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// rest is how long after a commit nothing is produced. Kafka answers a commit
// before it is written to all partitions, and lets what comes meanwhile wait for
// twenty milliseconds, or sends it back, which costs the client fifty.
const rest = 10 * time.Millisecond

// transaction fills one Kafka transaction and ends it: when it has
// TransactionRecords records, TransactionEvery after its first, or with ctx.
// Without a record it waits for one until a position is worth a transaction of
// its own.
func (x *exactlyOnce) transaction(ctx, late context.Context) error {
	x.next = x.done
	left := x.s.cfg.TransactionRecords
	timer := time.NewTimer(time.Until(x.closed.Add(rest)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil
	}
	var items []item
	var due <-chan time.Time // nil: nothing is to be stored
	for {
		var since time.Time
		items, since = x.take(items, left)
		for _, i := range items {
			if i.record != nil && !x.open {
				if err := x.s.producer.BeginTransaction(); err != nil {
					return fmt.Errorf("begin a Kafka transaction: %w", err)
				}
				x.open = true
				timer.Reset(time.Until(since.Add(x.s.cfg.TransactionEvery)))
				due = timer.C
			}
			if i.record != nil {
				left--
				x.last = i.record
				x.sent = append(x.sent, sent{i.record.Topic, len(i.record.Key) + len(i.record.Value), i.at, x.s.tracing.begin(i.record, i.at)}) //nolint:contextcheck // a span begins with the writer's
				x.s.producer.Produce(x.s.judge.going, i.record, x.acknowledged)                                                                 //nolint:contextcheck // only a refusal fails it
			}
			x.next = x.next.reach(i.point)
		}
		clear(items) // the records are the client's
		if due == nil && x.next != x.done {
			timer.Reset(time.Until(x.closed.Add(x.s.cfg.ConfirmEvery)))
			due = timer.C
		}
		if left == 0 {
			return x.end(late)
		}
		select {
		case <-x.more:
			continue
		case <-due:
		case <-ctx.Done():
		}
		if x.next == x.done {
			return nil
		}
		return x.end(late)
	}
}

// end adds the position and commits. It ends without having committed, and
// without knowing it, when ctx ends: only the position then tells.
func (x *exactlyOnce) end(ctx context.Context) error {
	if !x.open {
		if err := x.s.producer.BeginTransaction(); err != nil {
			return fmt.Errorf("begin a Kafka transaction: %w", err)
		}
		x.open = true
	}
	if x.last != nil {
		x.next.id = eventID(x.last)
	}
	if err := x.commitWith(ctx, x.s.position(x.next)); err != nil {
		return err
	}
	x.s.metrics.committed.Inc()
	now := time.Now()
	for _, r := range x.sent {
		x.s.metrics.published(r.topic, r.bytes, now.Sub(r.at))
		end(r.span, now)
	}
	x.sent, x.last, x.closed, x.done = x.sent[:0], nil, now, x.next
	x.s.confirmed(x.done)
	return nil
}

// commitWith puts p into the open transaction and commits that.
func (x *exactlyOnce) commitWith(ctx context.Context, p position.Position) error {
	record, err := x.s.positions.Record(p)
	if err != nil {
		return err
	}
	x.s.producer.Produce(context.WithoutCancel(ctx), record, func(r *kgo.Record, err error) {
		if err != nil {
			x.s.refusal(r, err)
		}
	})
	if err := x.s.producer.Flush(ctx); err != nil {
		return fmt.Errorf("publish up to %v: %w", p.End, err)
	}
	if x.s.failed.Load() {
		return errors.New("a record was refused") // which the session knows
	}
	if err := x.s.producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("commit the Kafka transaction up to %v: %w", p.End, err)
	}
	x.open = false
	return nil
}

// acknowledged is called by the client for every record, in any order. The
// record is not seen yet by those who read committed ones.
func (x *exactlyOnce) acknowledged(r *kgo.Record, err error) {
	if err != nil {
		x.s.refusal(r, err)
	}
	x.s.budget.give(size(r)) // last: a record that went alone is known refused or acknowledged then
}

// finish aborts what is open, which is so only after a failure: the readers of
// committed records should not wait until Kafka does it.
func (x *exactlyOnce) finish(late context.Context) error {
	if !x.open {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(late), lastSave)
	defer cancel()
	if err := x.s.producer.AbortBufferedRecords(ctx); err != nil {
		return fmt.Errorf("abort the Kafka transaction: %w", err)
	}
	if err := x.s.producer.EndTransaction(ctx, kgo.TryAbort); err != nil && !fenced(err) {
		return fmt.Errorf("abort the Kafka transaction: %w", err)
	}
	x.s.metrics.aborted.Inc()
	x.s.log.DebugContext(ctx, "aborted the open Kafka transaction", slog.Any("position", x.done.end))
	return nil
}

// fenced reports whether another producer has the transactional id, or Kafka
// has ended the transaction because it took too long.
func fenced(err error) bool {
	return errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced)
}
