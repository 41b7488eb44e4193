package partition

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// attempts is how often a change is tried before it is left to the next
	// call; with the pauses that is some seconds.
	attempts = 8

	// shortestWait is the first attempt's wait for a lock.
	shortestWait = 5 * time.Millisecond

	// pauseFactor is how many times the wait for a lock the pause after it is,
	// at least: writers stand behind it a fifth of the time at the most.
	pauseFactor = 4
)

// SQLSTATEs.
const (
	codeDuplicateTable  = "42P07"
	codeCheckViolation  = "23514"
	codeLockUnavailable = "55P03"
	codeDeadlock        = "40P01"
	codeCanceled        = "57014"
)

func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// A BusyError says that a lock could not be had in time, in any attempt. The
// next call may have it.
type BusyError struct {
	Table string // quoted
	Err   error
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("could not lock %s in %d attempts: %v; see who holds it: "+
		"select pid, xact_start, state, query from pg_stat_activity where pid in (select pid from pg_locks where relation = '%s'::regclass) order by xact_start;",
		e.Table, attempts, e.Err, e.Table)
}

func (e *BusyError) Unwrap() error { return e.Err }

func (s Set) lockTimeout() time.Duration {
	if s.LockTimeout > 0 {
		return s.LockTimeout
	}
	return 200 * time.Millisecond
}

func (s Set) holdTimeout() time.Duration {
	if s.HoldTimeout > 0 {
		return s.HoldTimeout
	}
	return 2 * time.Second
}

// change runs fn in a transaction that alone changes partitions of the table,
// and again while locks are not to be had.
func (s Set) change(ctx context.Context, db DB, fn func(tx pgx.Tx, t *table, list []Partition) error) error {
	return s.retry(ctx, func(wait time.Duration) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if err := setTimeout(ctx, tx, "lock_timeout", wait); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('walpost partitions ' || to_regclass($1)::oid, 0))`, s.Table.Sanitize())
			if err != nil {
				return fmt.Errorf("wait for another runner: %w", err)
			}
			t, list, err := s.inspect(ctx, tx)
			if err != nil {
				return err
			}
			return fn(tx, t, list)
		})
	})
}

// retry runs fn until it does not fail for want of a lock. Each time fn may
// wait longer for one.
func (s Set) retry(ctx context.Context, fn func(wait time.Duration) error) error {
	wait := min(shortestWait, s.lockTimeout())
	for try := 1; ; try++ {
		err := fn(wait)
		_, tried := errors.AsType[*BusyError](err) // by lock, inside
		if c := code(err); tried || c != codeLockUnavailable && c != codeDeadlock {
			return err
		}
		if try == attempts {
			return &BusyError{Table: s.Table.Sanitize(), Err: err}
		}
		pause := pauseFactor * wait
		timer := time.NewTimer(pause + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, s.lockTimeout())
	}
}

// lock takes locks inside tx, all or none of them, and tries again while they
// are not to be had: tx keeps what it has done before.
func (s Set) lock(ctx context.Context, tx pgx.Tx, statements ...string) error {
	return s.retry(ctx, func(wait time.Duration) error {
		return pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
			if err := setTimeout(ctx, tx, "lock_timeout", wait); err != nil {
				return err
			}
			for _, sql := range statements {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// A hold is the time during which writers may stand behind a transaction: it
// fails what would make it longer than HoldTimeout.
type hold struct {
	tx    pgx.Tx
	limit time.Duration
	began time.Time
}

func (s Set) hold(tx pgx.Tx) hold { return hold{tx: tx, limit: s.holdTimeout(), began: time.Now()} }

func (h hold) run(ctx context.Context, fn func() error) error {
	if err := setTimeout(ctx, h.tx, "statement_timeout", h.limit-time.Since(h.began)); err != nil {
		return err
	}
	err := fn()
	if code(err) == codeCanceled {
		return &SetupError{
			What: fmt.Sprintf("writers would have waited longer than %v (%v)", h.limit, err),
			Hint: "raise the hold timeout once, at a quiet time",
		}
	}
	return err
}

func (h hold) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		err := h.run(ctx, func() error { _, err := h.tx.Exec(ctx, sql); return err })
		if err != nil {
			return err
		}
	}
	return nil
}

// setTimeout sets one of PostgreSQL's timeouts for the rest of tx. Less than a
// millisecond would mean none.
func setTimeout(ctx context.Context, tx pgx.Tx, name string, d time.Duration) error {
	_, err := tx.Exec(ctx, `select set_config($1, $2, true)`, name, strconv.FormatInt(max(d.Milliseconds(), 1), 10)+"ms")
	return err
}
