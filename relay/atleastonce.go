package relay

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// partRecords is how many records of a transaction are tracked as one: a
// position may be stored behind them, inside the transaction.
const partRecords = 1000

// atLeastOnce publishes each record at once and stores the position behind
// those acknowledged, at most every ConfirmEvery.
type atLeastOnce struct {
	s      *session
	stored point // run's, then finish's
}

// A part is some records of a transaction that follow each other.
type part struct {
	session *session
	entry   *entry
	at      time.Time // of the transaction's commit
	records int
	promise func(*kgo.Record, error) // acknowledged, as one value for all records
}

func (a *atLeastOnce) add(_ context.Context, t *transaction, r *kgo.Record) {
	p := t.part
	if p == nil {
		p = &part{session: a.s, entry: a.s.tracker.begin(), at: t.at}
		p.promise = p.acknowledged
		t.part = p
	}
	a.s.tracker.add(p.entry)
	t.last = r
	if p.records++; p.records == partRecords {
		a.interrupted(t)
	}
	// The session's end must not fail records on their way: finish waits. A
	// refusal fails those that are not.
	a.s.producer.Produce(a.s.judge.going, r, p.promise) //nolint:contextcheck // see above
}

func (a *atLeastOnce) commit(t *transaction, end lsn.Pos) {
	if t.part == nil {
		a.s.tracker.keepalive(end)
		return
	}
	a.s.tracker.close(t.part.entry, point{end: end, commit: t.commit, index: t.records - 1, sequence: a.s.sequence})
}

func (a *atLeastOnce) keepalive(end lsn.Pos) { a.s.tracker.keepalive(end) }

func (a *atLeastOnce) interrupted(t *transaction) {
	if t.part == nil {
		return
	}
	a.s.tracker.close(t.part.entry, point{commit: t.commit, index: t.records - 1, sequence: a.s.sequence, id: eventID(t.last)})
	t.part = nil
}

// acknowledged is called by the client for every record, in any order. After
// a failed one nothing of this session's is produced or confirmed beyond it.
func (p *part) acknowledged(r *kgo.Record, err error) {
	s := p.session
	defer s.budget.give(size(r)) // last: a record that went alone is known refused or acknowledged then
	if err != nil {
		s.refusal(r, err)
		return
	}
	now := time.Now()
	s.metrics.published(r.Topic, len(r.Key)+len(r.Value), now.Sub(p.at))
	end(s.tracing.begin(r, p.at), now)
	s.tracker.acknowledge(p.entry)
}

// run stores positions as the tracker moves on and has each confirmed to
// PostgreSQL after it.
func (a *atLeastOnce) run(ctx, late context.Context) error {
	a.stored = a.s.start()
	for {
		done, changed := a.s.tracker.reached()
		if done == a.stored {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if err := a.save(late, done); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the stop is why it failed
			}
			return err
		}
		pause := time.NewTimer(a.s.cfg.ConfirmEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// save stores p unless it is stored.
func (a *atLeastOnce) save(ctx context.Context, p point) error {
	if p == a.stored {
		return nil
	}
	if err := a.s.lease(); err != nil {
		return err
	}
	if err := a.s.positions.Save(ctx, a.s.position(p)); err != nil {
		return err
	}
	a.stored = p
	a.s.confirmed(p)
	return nil
}

// finish waits for the records on their way. After a refused one nothing is
// waited for: what is behind it must come again.
func (a *atLeastOnce) finish(late context.Context) error {
	var err error
	if !a.s.failed.Load() {
		if err = a.s.producer.Flush(late); err != nil {
			err = errors.Join(errors.New("records were still on their way, they come again"), err)
		}
	}
	// Where the slot may be another relay's, its position must not be written
	// over. Where the flush has used up the time, there is some left for this.
	if errors.Is(context.Cause(late), errGrace) {
		late = context.WithoutCancel(late)
	}
	ctx, cancel := context.WithTimeout(late, lastSave)
	defer cancel()
	if context.Cause(ctx) != nil {
		return err
	}
	done, _ := a.s.tracker.reached()
	return errors.Join(err, a.save(ctx, done))
}

// lastSave bounds the last position's way to Kafka.
const lastSave = 2 * time.Second
