package inbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Redrive says which letters are to be handled again, and how fast.
type Redrive struct {
	// Filter selects letters. Of those it selects, the ones that are the first
	// of their key and not being redriven already are redriven; what waits
	// behind each follows it.
	Filter Filter

	// Rate is how many letters a second begin, evenly spread; what waits
	// behind them is not counted. 0: all at once.
	Rate float64

	// Limit is the most letters to redrive, in the order of their ids; what
	// waits behind them is not counted. 0: all.
	Limit int

	// DryRun tells what would be redriven and changes nothing.
	DryRun bool
}

// minRate spreads ten thousand letters over about four months.
const minRate = 0.001

func (r *Redrive) check() error {
	var problems []error
	if r.Rate != 0 && (math.IsNaN(r.Rate) || math.IsInf(r.Rate, 0) || r.Rate < minRate) {
		problems = append(problems, fmt.Errorf("rate %v: give letters a second, %v at least, or 0 for all at once", r.Rate, minRate))
	}
	if r.Limit < 0 {
		problems = append(problems, fmt.Errorf("limit %d: it counts from 0", r.Limit))
	}
	return errors.Join(problems...)
}

// Redriven is what a redrive came to.
type Redriven struct {
	Letters []Letter // those that begin, in this order, with RedriveAt set; without headers and payloads
	Behind  int      // letters that wait behind them and follow

	// Matched is how many letters the filter selects. Those that are not among
	// Letters wait behind another one, or are being redriven, or are over the
	// limit.
	Matched int
}

// Redrive has letters handled again by the running [Inbox] of their group,
// which may be any process: it handles the letter as it would handle the
// record from Kafka, with the same headers, and then what waits behind it, in
// order, until the key has no letters and its new events flow again.
//
// A letter is tried as often as an event from Kafka is, and is dead again when
// it fails, with the new error, and with what is behind it still waiting: a
// redrive ends. Two redrives at once handle no event twice. Nothing happens
// while no Inbox of the group runs; the letters begin when one does.
func (d DeadLetters) Redrive(ctx context.Context, redrive Redrive) (Redriven, error) {
	where, args, err := redrive.Filter.where()
	if err := errors.Join(redrive.check(), err); err != nil {
		return Redriven{}, fmt.Errorf("redrive dead letters: %w", err)
	}
	var done Redriven
	err = pgx.BeginFunc(ctx, d.DB, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select count(*) from inbox_dead d where "+where, args...).Scan(&done.Matched); err != nil {
			return err
		}
		if done.Letters, err = heads(ctx, tx, where, args, redrive.Limit, !redrive.DryRun); err != nil {
			return err
		}
		if err := spread(ctx, tx, done.Letters, redrive.Rate); err != nil {
			return err
		}
		for i := range done.Letters {
			done.Behind += done.Letters[i].Behind
		}
		if redrive.DryRun || len(done.Letters) == 0 {
			return nil
		}
		return schedule(ctx, tx, done.Letters)
	})
	if err != nil {
		return Redriven{}, fmt.Errorf("redrive dead letters: %w", err)
	}
	return done, nil
}

// heads gives the letters that can be redriven, locked where lock is set: a
// second redrive waits, and then finds them taken.
func heads(ctx context.Context, tx pgx.Tx, where string, args []any, limit int, lock bool) ([]Letter, error) {
	sql := "select " + letterColumns + " from inbox_dead d where " + where + " and d.redrive_at is null and not exists" +
		" (select from inbox_dead b where b.consumer_group = d.consumer_group and b.ordering_key = d.ordering_key and b.id < d.id)" +
		" order by d.id"
	if limit > 0 {
		args = append(slices.Clip(args), limit)
		sql += fmt.Sprintf(" limit $%d::bigint", len(args))
	}
	if lock {
		sql += " for update of d"
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Letter, err error) {
		return l, row.Scan(l.fields()...)
	})
}

// spread sets when each of letters begins, by the server's clock: different
// times in any case, so that the index alone gives the next one.
func spread(ctx context.Context, tx pgx.Tx, letters []Letter, rate float64) error {
	var now time.Time
	if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
		return err
	}
	for i := range letters {
		after := time.Duration(i) * time.Microsecond
		if rate > 0 {
			after = time.Duration(float64(i) / rate * float64(time.Second)).Truncate(time.Microsecond)
		}
		letters[i].RedriveAt = now.Add(after)
	}
	return nil
}

func schedule(ctx context.Context, tx pgx.Tx, letters []Letter) error {
	ids, times := make([]int64, len(letters)), make([]time.Time, len(letters))
	groups := make(map[string]bool)
	for i := range letters {
		ids[i], times[i] = letters[i].ID, letters[i].RedriveAt
		groups[letters[i].Group] = true
	}
	if _, err := tx.Exec(ctx, "update inbox_dead set redrive_at = at, starts = 0"+
		" from unnest($1::bigint[], $2::timestamptz[]) as due (letter, at) where id = letter", ids, times); err != nil {
		return err
	}
	for group := range groups {
		if err := notify(ctx, tx, group); err != nil {
			return err
		}
	}
	return nil
}

// channel is where PostgreSQL tells every Inbox of a database that a letter of
// the group in the message became due, or will be.
const channel = "inbox_dead"

// notify tells when the transaction commits. The message is the group; one
// that is too long for a message goes without and wakes every group.
func notify(ctx context.Context, tx pgx.Tx, group string) error {
	if len(group) > 1000 {
		group = ""
	}
	_, err := tx.Exec(ctx, "select pg_notify($1, $2)", channel, group)
	return err
}
