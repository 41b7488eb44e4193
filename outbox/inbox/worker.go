package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// maxOutageWait bounds the waits for a PostgreSQL that is away: when it is
// back everything is to go on soon.
const maxOutageWait = 5 * time.Second

// A policyError ends Run because of [Fail].
type policyError struct {
	at  string
	err error
}

func (e *policyError) Error() string {
	return fmt.Sprintf("record %s: %v (by policy fail: mend the record's producer or the handlers, or choose another policy)", e.at, e.err)
}

func (e *policyError) Unwrap() error { return e.err }

// process handles an item once and says what is to become of it. The error is
// one that Run must end with. It waits for nothing but PostgreSQL and the
// handler, and ctx ends both.
func (in *Inbox) process(ctx context.Context, i *item) (verdict, error) {
	e, begun := &i.event, time.Now()
	if i.dead == nil && in.cfg.Pool != nil && (e.invalid != nil || e.handler == nil) {
		// Known before any transaction.
		return in.failed(ctx, i, begun, in.call(ctx, nil, e, 0))
	}
	var result outcome
	var err error
	switch {
	case i.dead != nil:
		result, err = in.park(ctx, e, i.dead, i.attempts)
	case in.cfg.Pool == nil:
		err = in.call(ctx, nil, e, i.attempts+1)
	default:
		if result, err = in.transact(ctx, e, i.attempts+1); err == nil && result == blocked {
			result, err = in.park(ctx, e, nil, i.attempts)
		}
	}
	switch {
	case err == nil:
		return in.succeeded(ctx, i, begun, result), nil
	case ctx.Err() != nil:
		return verdict{}, nil //nolint:nilerr // cut off: that is nobody's failure
	case !isFailure(err):
		return in.unavailable(ctx, i, begun, err), nil
	default:
		return in.failed(ctx, i, begun, err)
	}
}

func (in *Inbox) succeeded(ctx context.Context, i *item, begun time.Time, result outcome) verdict {
	i.outages = 0
	e := &i.event
	switch result {
	case handled:
		in.tell.handled(ctx, e, i.attempts+1, begun)
	case duplicate:
		in.tell.duplicate(ctx, e, 0, begun)
	case waiting:
		in.tell.waiting(ctx, e, i.attempts, begun, i.dead)
	case dead:
		in.cfg.Log.WarnContext(ctx, "event is a dead letter; the later ones of its key wait behind it", i.attrs(i.dead)...)
		in.tell.dead(ctx, e, i.attempts, begun, i.dead)
	case blocked, unblocked:
		return verdict{again: true}
	}
	return verdict{done: true}
}

// unavailable has an item wait for PostgreSQL. That is not counted as an
// attempt.
func (in *Inbox) unavailable(ctx context.Context, i *item, begun time.Time, err error) verdict {
	i.outages++
	wait := min(in.cfg.backoff(i.outages), maxOutageWait)
	in.cfg.Log.WarnContext(ctx, "PostgreSQL fails; the event waits", i.attrs(err)...)
	in.tell.unavailable(ctx, &i.event, i.attempts, begun, wait, err)
	return verdict{again: true, wait: wait}
}

// failed decides about an item that is itself to blame.
func (in *Inbox) failed(ctx context.Context, i *item, begun time.Time, err error) (verdict, error) {
	i.outages = 0
	policy := DeadLetter
	switch {
	case i.event.invalid != nil || errors.Is(err, errUndecodable):
		policy = in.cfg.Undecodable
	case i.event.handler == nil:
		policy = in.cfg.Unknown
	default:
		i.attempts++
	}
	switch {
	case policy == Skip:
		in.tell.skipped(ctx, &i.event, i.attempts, begun, err)
		return verdict{done: true}, nil
	case policy == Fail:
		return verdict{}, &policyError{at: place(i.event.record), err: err}
	}
	spent := isPermanent(err) || i.attempts >= in.cfg.MaxAttempts
	if spent && in.cfg.Pool != nil {
		i.dead = err
		return verdict{again: true}, nil
	}
	wait := in.cfg.backoff(max(1, i.attempts))
	if spent {
		wait = in.cfg.longest()
	}
	in.cfg.Log.WarnContext(ctx, "event failed; trying again", append(i.attrs(err), slog.Duration("wait", wait))...)
	in.tell.retried(ctx, &i.event, i.attempts, begun, wait, err)
	return verdict{again: true, wait: wait, held: spent}, nil
}

// attrs say in a log which event it is.
func (i *item) attrs(err error) []any {
	e := &i.event
	return []any{
		slog.String("topic", e.record.Topic), slog.Int("partition", int(e.record.Partition)), slog.Int64("offset", e.record.Offset),
		slog.String("id", e.ID), slog.String("type", e.Type), slog.String("key", e.key),
		slog.Int("attempts", i.attempts), slog.Any("error", err),
	}
}
