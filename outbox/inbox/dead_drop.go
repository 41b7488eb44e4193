package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxReason bounds the reason of a drop, which stays in table inbox.
const maxReason = 1000

// A Drop says which letters are given up.
type Drop struct {
	// Filter selects the letters. A Filter without a field set is refused
	// unless All is set.
	Filter Filter
	All    bool

	// Reason is kept with each event, in column dropped of table inbox: who
	// gives it up and why. It is required.
	Reason string

	// Limit is the most letters to drop, 0 all that Filter selects.
	Limit int

	// DryRun tells what would be dropped and changes nothing.
	DryRun bool
}

func (d *Drop) check() error {
	var problems []error
	if d.Filter.IsZero() && !d.All {
		problems = append(problems, errors.New("the filter selects every letter of every group: set a field of it, or All"))
	}
	if strings.TrimSpace(d.Reason) == "" {
		problems = append(problems, errors.New("the reason is empty: say who gives the events up and why"))
	}
	if n := len(d.Reason); n > maxReason {
		problems = append(problems, fmt.Errorf("the reason has %d bytes: use %d at most", n, maxReason))
	}
	if d.Limit < 0 {
		problems = append(problems, fmt.Errorf("limit %d: it counts from 0", d.Limit))
	}
	return errors.Join(problems...)
}

// Drop gives letters up: their events are never handled, and count as handled
// when they come from Kafka again, as long as the window of table inbox lasts.
// It gives the letters with their headers and payloads, which are then nowhere
// else in the database.
//
// Each letter is dropped in a transaction of its own, which waits for a handler
// that works on the letter's key; one that a redrive handled meanwhile is not
// among those given. An error comes with the letters dropped before it. When a
// letter that others wait behind is dropped, these are handled by the running
// Inbox.
func (d DeadLetters) Drop(ctx context.Context, drop Drop) ([]Letter, error) {
	if err := drop.check(); err != nil {
		return nil, fmt.Errorf("drop dead letters: %w", err)
	}
	ids, err := d.matching(ctx, &drop.Filter, drop.Limit)
	if err != nil {
		return nil, fmt.Errorf("drop dead letters: %w", err)
	}
	letters := make([]Letter, 0, len(ids))
	for _, id := range ids {
		var l Letter
		if drop.DryRun {
			l, err = get(ctx, d.DB, id)
		} else {
			l, err = d.drop(ctx, id, drop.Reason)
		}
		if errors.Is(err, ErrNoLetter) {
			continue
		}
		if err != nil {
			return letters, fmt.Errorf("drop dead letter %d: %w", id, err)
		}
		letters = append(letters, l)
	}
	return letters, nil
}

func (d DeadLetters) matching(ctx context.Context, filter *Filter, limit int) ([]int64, error) {
	where, args, err := filter.where()
	if err != nil {
		return nil, err
	}
	sql := "select d.id from inbox_dead d where " + where + " order by d.id"
	if limit > 0 {
		args = append(args, limit)
		sql += fmt.Sprintf(" limit $%d::bigint", len(args))
	}
	rows, err := d.DB.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

func (d DeadLetters) drop(ctx context.Context, id int64, reason string) (Letter, error) {
	var l Letter
	err := pgx.BeginFunc(ctx, d.DB, func(tx pgx.Tx) error {
		var group, key string
		err := tx.QueryRow(ctx, "select consumer_group, ordering_key from inbox_dead where id = $1", id).Scan(&group, &key)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoLetter
		}
		if err != nil {
			return err
		}
		if err := lockKey(ctx, tx, group, key); err != nil {
			return err
		}
		if l, err = get(ctx, tx, id); err != nil { // again: it may have been handled while we waited
			return err
		}
		tag, err := tx.Exec(ctx, `insert into inbox (consumer_group, event_id, event_time, topic, partition, "offset", dropped)`+
			` values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`,
			l.Group, l.EventID, l.EventTime, l.Topic, l.Partition, l.Offset, reason)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 { // whoever handled it takes the letter away
			return ErrNoLetter
		}
		if err := remove(ctx, tx, &l); err != nil {
			return err
		}
		next, err := advance(ctx, tx, &l, 0, 0)
		if err != nil || next == 0 {
			return err
		}
		return notify(ctx, tx, l.Group)
	})
	return l, err
}

// errTaken says that a letter is not as it was read: it was handled or
// dropped, or its lease ended and another process took it.
var errTaken = errors.New("the letter is in other hands")

// remove deletes l, which is then handled or given up in the same transaction.
// The caller holds the lock of the key.
func remove(ctx context.Context, tx pgx.Tx, l *Letter) error {
	tag, err := tx.Exec(ctx, "delete from inbox_dead where id = $1 and starts = $2", l.ID, l.starts)
	if err == nil && tag.RowsAffected() == 0 {
		return errTaken
	}
	return err
}

// advance has the letter behind l, which the same transaction has removed, go
// on: due after wait, with starts tries begun. So no crash leaves a key that
// nobody goes on with. It gives 0 where l was not the first of its key, or the
// last, or the next one is dead itself. The caller holds the lock of the key.
func advance(ctx context.Context, tx pgx.Tx, l *Letter, wait time.Duration, starts int) (next int64, err error) {
	err = tx.QueryRow(ctx, "update inbox_dead set redrive_at = clock_timestamp() + $4::interval, starts = $5"+
		" where id = (select min(id) from inbox_dead where consumer_group = $1 and ordering_key = $2)"+
		" and id > $3 and state = 'waiting' and redrive_at is null returning id",
		l.Group, l.OrderingKey, l.ID, wait, starts).Scan(&next)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return next, err
}
