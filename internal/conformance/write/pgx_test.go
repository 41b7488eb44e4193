package write_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/outbox"
)

type pgxClient struct {
	conn *pgx.Conn
	use  func(pgx.Tx) transaction
}

func (c pgxClient) begin(ctx context.Context) (transaction, error) {
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return c.use(tx), nil
}

// pgxPath gives a path on each link.
func pgxPath(name string, links []link, use func(pgx.Tx) transaction) (all []path) {
	for _, l := range links {
		all = append(all, path{name: name + ", " + l.name, open: func(t *testing.T, w *world) client {
			t.Helper()
			return pgxClient{connect(t, l.dsn(w), func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = l.mode }), use}
		}})
	}
	return all
}

func pgxPaths(w outbox.Writer, links []link) (all []path) {
	name := w.Mode.String() + ", "
	all = append(all, pgxPath(name+"Write", links, func(tx pgx.Tx) transaction { return writeTx{pgxTx{tx}, w} })...)
	all = append(all, pgxPath(name+"Queue", links, func(tx pgx.Tx) transaction { return queueTx{pgxTx{tx}, w} })...)
	all = append(all, pgxPath(name+"Change", links, func(tx pgx.Tx) transaction { return changeTx{pgxTx{tx}, w} })...)
	return append(all, pgxPath(name+"QueueChange", links, func(tx pgx.Tx) transaction { return queueChangeTx{pgxTx{tx}, w} })...)
}

// pgxTx is what the paths through pgx share.
type pgxTx struct{ tx pgx.Tx }

func (t pgxTx) exec(ctx context.Context, sql string) error {
	_, err := t.tx.Exec(ctx, sql)
	return err
}

func (t pgxTx) text(ctx context.Context, sql string) (s string, err error) {
	return s, t.tx.QueryRow(ctx, sql).Scan(&s)
}

func (t pgxTx) commit(ctx context.Context) error   { return t.tx.Commit(ctx) }
func (t pgxTx) rollback(ctx context.Context) error { return t.tx.Rollback(ctx) }

type writeTx struct {
	pgxTx
	w outbox.Writer
}

func (t writeTx) write(ctx context.Context, events []outbox.Event) error {
	return t.w.Write(ctx, t.tx, events...)
}

type queueTx struct {
	pgxTx
	w outbox.Writer
}

const addBusiness = `insert into business (n) values ($1)`

// write lets the events ride between two statements of the caller's.
func (t queueTx) write(ctx context.Context, events []outbox.Event) error {
	batch := new(pgx.Batch)
	batch.Queue(addBusiness, 1)
	if err := t.w.Queue(ctx, batch, events...); err != nil {
		if batch.Len() != 1 {
			return fmt.Errorf("a refused Queue left %d statements in the batch, 1 was there before", batch.Len())
		}
		return err
	}
	batch.Queue(addBusiness, 2)
	return t.tx.SendBatch(ctx, batch).Close()
}

type changeTx struct {
	pgxTx
	w outbox.Writer
}

func (t changeTx) write(ctx context.Context, events []outbox.Event) error {
	return mustChange(t.change(ctx, events, addBusiness, 1))
}

func (t changeTx) change(ctx context.Context, events []outbox.Event, sql string, args ...any) (bool, error) {
	return t.w.Change(ctx, t.tx, events, sql, args...)
}

func mustChange(changed bool, err error) error {
	if err == nil && !changed {
		return errors.New("no row was changed")
	}
	return err
}

type queueChangeTx struct {
	pgxTx
	w outbox.Writer
}

func (t queueChangeTx) write(ctx context.Context, events []outbox.Event) error {
	return mustChange(t.change(ctx, events, addBusiness, 1))
}

func (t queueChangeTx) change(ctx context.Context, events []outbox.Event, sql string, args ...any) (changed bool, err error) {
	batch := new(pgx.Batch)
	queued, err := t.w.QueueChange(ctx, batch, events, sql, args...)
	if err != nil {
		return false, err
	}
	queued.Exec(func(tag pgconn.CommandTag) error {
		changed = tag.RowsAffected() > 0
		return nil
	})
	err = t.tx.SendBatch(ctx, batch).Close()
	return changed, err
}
