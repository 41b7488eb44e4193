package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox/internal/partition"
)

// A Pass is what one pass did and found.
type Pass struct {
	Made     []string // partitions, by name
	Moved    int64    // rows that left the default partition
	Detached []string
	Dropped  []string

	// Waiting are the tables that are old enough and could not be dropped yet.
	Waiting []Waiting

	// Oldest is the beginning of the oldest attached partition that has one;
	// zero where there is none.
	Oldest time.Time

	// DefaultBytes is the size of the default partition. It stays near zero
	// while partitions are made ahead.
	DefaultBytes int64
}

// Waiting is a table that waits to be dropped until a slot has passed it.
type Waiting struct {
	Table string
	Slot  string // the slot that is furthest behind, or that of the [*SlotError]
	Bytes uint64 // of WAL that Slot has still to pass; 0 with a *SlotError
}

// Step makes one pass: it makes missing partitions, moves rows out of the
// default partition, detaches partitions that are old enough and drops those
// that every slot has passed. A partition that this pass detaches is dropped
// by a later one, when the slots have come so far.
//
// The parts do not depend on each other: where one fails the others are done
// all the same, and the error joins what failed. A [*SlotError] says that
// nothing was detached or dropped, and why. A slot that is only behind is no
// error: see Pass.Waiting.
func (r *Retention) Step(ctx context.Context) (Pass, error) {
	var p Pass
	err := r.step(ctx, &p)
	if err != nil {
		err = fmt.Errorf("retention of %s: %w", r.cfg.Table.Sanitize(), err)
	}
	for _, hook := range r.cfg.Hooks {
		hook.OnPass(ctx, p, err)
	}
	return p, err
}

func (r *Retention) step(ctx context.Context, p *Pass) error {
	s, err := r.look(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(r.makeAhead(ctx, p, s.now), r.drainDefault(ctx, p, s.now), r.remove(ctx, p, s))
	list, listErr := r.set.List(ctx, r.cfg.DB)
	for _, q := range list {
		if !q.Default && !q.From.IsZero() {
			p.Oldest = q.From
			break
		}
	}
	p.DefaultBytes, err = s.defaultBytes, errors.Join(err, listErr)
	return err
}

// makeAhead makes the partitions of the current period and those to come.
func (r *Retention) makeAhead(ctx context.Context, p *Pass, now time.Time) error {
	until := now
	for range r.cfg.Ahead {
		until = r.cfg.Period.Next(until)
	}
	return r.make(ctx, p, now, until.Add(time.Nanosecond)) // the period that begins there too
}

func (r *Retention) make(ctx context.Context, p *Pass, first, until time.Time) error {
	made, err := r.set.Make(ctx, r.cfg.DB, first, until)
	for _, m := range made {
		p.Made = append(p.Made, m.Name)
		p.Moved += m.Moved
		r.cfg.Log.InfoContext(ctx, "partition made", slog.String("partition", m.Name), slog.Int64("moved_rows", m.Moved))
	}
	return err
}

// maxDrained bounds the partitions that one pass makes for old rows: each
// makes writers wait for a moment.
const maxDrained = 16

// drainDefault moves rows of past periods out of the default partition, where
// they would stay for ever: rows from before partitions were made ahead, and
// rows written with an explicit created_at.
func (r *Retention) drainDefault(ctx context.Context, p *Pass, now time.Time) error {
	for range maxDrained {
		oldest, found, err := r.oldestInDefault(ctx, r.cfg.Period.Start(now))
		if err != nil || !found {
			return err
		}
		if err := r.make(ctx, p, oldest, r.cfg.Period.Start(oldest).Add(time.Nanosecond)); err != nil {
			return err
		}
	}
	return nil
}

// remove detaches what is old enough and drops what has been passed.
func (r *Retention) remove(ctx context.Context, p *Pass, s *state) error {
	list, err := r.set.List(ctx, r.cfg.DB)
	if err != nil {
		return err
	}
	var old []partition.Partition
	var errs []error
	for _, q := range list {
		switch {
		case q.Default || q.To.IsZero() || q.To.After(s.now.Add(-r.cfg.Keep)):
		case q.Pending || q.Foreign:
			errs = append(errs, fmt.Errorf("partition %s is not a plain attached table; detach it by hand: alter table %s detach partition %s%s;",
				q.Name, r.cfg.Table.Sanitize(), q.Identifier().Sanitize(), map[bool]string{true: " finalize"}[q.Pending]))
		default:
			old = append(old, q)
		}
	}
	waiting, err := r.set.Detached(ctx, r.cfg.DB)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if len(old)+len(waiting) == 0 {
		return errors.Join(errs...)
	}
	if s.slotError != nil {
		for _, q := range old {
			p.Waiting = append(p.Waiting, Waiting{Table: q.Name, Slot: s.slotError.Slot})
		}
		for _, d := range waiting {
			p.Waiting = append(p.Waiting, Waiting{Table: d.Name, Slot: s.slotError.Slot})
		}
		return errors.Join(append(errs, s.slotError)...)
	}
	for _, q := range old {
		done, err := r.set.Detach(ctx, r.cfg.DB, q, notePosition)
		if err != nil {
			errs = append(errs, err)
			break // the next would wait for the same locks
		}
		if done {
			p.Detached = append(p.Detached, q.Name)
			r.cfg.Log.InfoContext(ctx, "partition detached", slog.String("partition", q.Name), slog.Time("to", q.To))
		}
	}
	if waiting, err = r.set.Detached(ctx, r.cfg.DB); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, d := range waiting {
		if err := r.drop(ctx, p, d); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// drop drops d if every slot has passed it.
func (r *Retention) drop(ctx context.Context, p *Pass, d partition.Detached) error {
	done, err := r.set.Drop(ctx, r.cfg.DB, d, func(ctx context.Context, tx pgx.Tx) error {
		noted, err := parseNote(d.Note)
		if err != nil {
			return err
		}
		return r.passed(ctx, tx, noted)
	})
	if behind, ok := errors.AsType[*behindError](err); ok {
		p.Waiting = append(p.Waiting, Waiting{Table: d.Name, Slot: behind.slot, Bytes: behind.bytes})
		return nil
	}
	if done {
		p.Dropped = append(p.Dropped, d.Name)
		r.cfg.Log.InfoContext(ctx, "partition dropped", slog.String("partition", d.Name))
	}
	return err
}
