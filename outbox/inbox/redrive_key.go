package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// redriveKey handles l, which this process has leased, and what waits behind
// it, until the key has no letters, one fails or ctx ends. handling goes on for
// the grace of a shutdown. It reports whether a letter is to be tried again.
func (in *Inbox) redriveKey(ctx, handling context.Context, l Letter) (again bool) {
	for {
		next, err := in.redriveLetter(ctx, handling, &l)
		if err == nil && next != 0 {
			l, err = get(handling, in.cfg.Pool, next)
		}
		if err == nil && next != 0 && ctx.Err() != nil {
			next, err = 0, in.release(ctx, &l, 0, -1)
		}
		switch {
		case errors.Is(err, errTaken), errors.Is(err, ErrNoLetter), err == nil && next == 0:
			return false
		case err != nil:
			in.cfg.Log.WarnContext(ctx, "redrive interrupted", slog.String("group", in.cfg.Group), slog.String("key", l.OrderingKey),
				slog.Int64("letter", l.ID), slog.Any("error", err))
			return true
		}
	}
}

// redriveLetter tries l as often as an event from Kafka is tried. It gives the
// letter behind it, leased, once it is handled, and 0 where there is none or l
// is dead again. With an error l is to be tried again, by whoever finds it due.
func (in *Inbox) redriveLetter(ctx, handling context.Context, l *Letter) (next int64, err error) {
	i := &item{event: in.letterEvent(l), attempts: l.Attempts}
	if l.starts > in.cfg.MaxAttempts {
		return 0, in.buryAgain(handling, l, i, time.Now(),
			fmt.Errorf("%d tries of this redrive ended without a result: the process died or lost PostgreSQL in the middle of each", l.starts-1))
	}
	for attempt := 1; ; attempt++ {
		begun := time.Now()
		next, fresh, err := in.redriveOnce(handling, l, i)
		switch {
		case err == nil && fresh:
			in.tell.handled(handling, &i.event, i.attempts+1, begun)
			return next, nil
		case err == nil:
			in.tell.duplicate(handling, &i.event, 0, begun)
			return next, nil
		case errors.Is(err, errTaken):
			return 0, err
		case handling.Err() != nil: // cut off: that is nobody's failure
			return 0, errors.Join(err, in.release(ctx, l, 0, -1))
		case !isFailure(err):
			wait := min(in.cfg.backoff(l.starts), maxOutageWait)
			in.tell.unavailable(handling, &i.event, i.attempts, begun, wait, err)
			return 0, errors.Join(err, in.release(ctx, l, wait, 0))
		}
		i.attempts++
		if isPermanent(err) || attempt >= in.cfg.MaxAttempts {
			return 0, in.buryAgain(handling, l, i, begun, err)
		}
		wait := in.cfg.backoff(attempt)
		in.cfg.Log.WarnContext(ctx, "redriven event failed; trying again", append(i.attrs(err), slog.Duration("wait", wait))...)
		in.tell.retried(handling, &i.event, i.attempts, begun, wait, err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return 0, in.release(ctx, l, 0, -1)
		case <-timer.C:
		}
		if err := in.renew(handling, l); err != nil {
			return 0, err
		}
	}
}

// letterEvent makes the event of l as it came from Kafka. What the letter was
// filed under stands, whatever an edit made of the headers.
func (in *Inbox) letterEvent(l *Letter) event {
	e := in.event(&kgo.Record{
		Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Timestamp: l.recordTime,
		Key: l.Key, Headers: l.Headers, Value: l.Payload,
	})
	e.id, e.time, e.key = l.EventID, l.EventTime, l.OrderingKey
	return e
}

// redriveOnce handles i and takes its letter away, under the lock of the key:
// an event of the key that comes from Kafka meanwhile waits, and then finds
// either a letter to stand behind or none.
func (in *Inbox) redriveOnce(ctx context.Context, l *Letter, i *item) (next int64, fresh bool, err error) {
	leave := func(tx pgx.Tx) (err error) {
		next, err = advance(ctx, tx, l, in.lease(), 1)
		return err
	}
	if in.cfg.Isolation == pgx.ReadCommitted {
		err = in.locked(ctx, l, in.cfg.Isolation, func(tx pgx.Tx) (err error) {
			if err = remove(ctx, tx, l); err != nil {
				return err
			}
			if fresh, err = in.apply(ctx, tx, &i.event, i.attempts+1); err != nil {
				return err
			}
			return leave(tx)
		})
		return next, fresh, err
	}
	// A stricter transaction does not see what came to stand behind l while
	// the lock was waited for. So the letter stays until a second one; when
	// the process dies between the two, the event is recognised.
	err = in.locked(ctx, l, in.cfg.Isolation, func(tx pgx.Tx) (err error) {
		if err = hold(ctx, tx, l); err != nil {
			return err
		}
		fresh, err = in.apply(ctx, tx, &i.event, i.attempts+1)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	err = in.locked(ctx, l, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if err := remove(ctx, tx, l); err != nil {
			return err
		}
		return leave(tx)
	})
	return next, fresh, err
}

// locked runs f in a transaction that has the lock of l's key.
func (in *Inbox) locked(ctx context.Context, l *Letter, level pgx.TxIsoLevel, f func(pgx.Tx) error) error {
	tx, err := in.cfg.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
	if err != nil {
		return err
	}
	defer rollback(ctx, tx)
	if err := lockKey(ctx, tx, l.Group, l.OrderingKey); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	return commit(ctx, tx)
}

// hold keeps l as it is until tx ends.
func hold(ctx context.Context, tx pgx.Tx, l *Letter) error {
	tag, err := tx.Exec(ctx, "select from inbox_dead where id = $1 and starts = $2 for update", l.ID, l.starts)
	if err == nil && tag.RowsAffected() == 0 {
		return errTaken
	}
	return err
}

// renew leases l for another attempt.
func (in *Inbox) renew(ctx context.Context, l *Letter) error {
	return in.update(ctx, l, "redrive_at = clock_timestamp() + $3::interval", in.lease())
}

// release makes l due again after wait, for any process, although ctx may have
// ended. starts is added to the tries that are counted against a redrive.
func (in *Inbox) release(ctx context.Context, l *Letter, wait time.Duration, starts int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	return in.update(ctx, l, "redrive_at = clock_timestamp() + $3::interval, starts = starts + $4", wait, starts)
}

// buryAgain ends the redrive of l: it is dead, and what waits behind it goes on
// waiting.
func (in *Inbox) buryAgain(ctx context.Context, l *Letter, i *item, begun time.Time, cause error) error {
	err := in.update(ctx, l, "state = 'dead', redrive_at = null, failed_at = now(), attempts = $3, error = $4", i.attempts, storableError(cause))
	if err == nil {
		in.cfg.Log.WarnContext(ctx, "redriven event is a dead letter again", append(i.attrs(cause), slog.Int64("letter", l.ID))...)
		in.tell.dead(ctx, &i.event, i.attempts, begun, cause)
	}
	return err
}

// update changes l where it is still this process's.
func (in *Inbox) update(ctx context.Context, l *Letter, set string, args ...any) error {
	tag, err := in.cfg.Pool.Exec(ctx, "update inbox_dead set "+set+" where id = $1 and starts = $2", append([]any{l.ID, l.starts}, args...)...)
	if err == nil && tag.RowsAffected() == 0 {
		return errTaken
	}
	return err
}
