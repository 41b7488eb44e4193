package write_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/sqltx"
)

type sqlClient struct {
	db  *sql.DB
	use func(*sql.Tx) transaction
}

func (c sqlClient) begin(ctx context.Context) (transaction, error) {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	return c.use(tx), nil
}

// sqlPaths drives database/sql with pgx, on each link.
func sqlPaths(o outbox.Writer, links []link) (all []path) {
	w := sqltx.Writer{Outbox: o}
	for name, use := range map[string]func(*sql.Tx) transaction{
		"sqltx.Write":  func(tx *sql.Tx) transaction { return sqlWriteTx{sqlTx{tx}, w} },
		"sqltx.Change": func(tx *sql.Tx) transaction { return sqlChangeTx{sqlTx{tx}, w} },
	} {
		for _, l := range links {
			all = append(all, path{name: o.Mode.String() + ", " + name + ", " + l.name, open: func(t *testing.T, w *world) client {
				t.Helper()
				return sqlClient{sqlLink(t, w, l), use}
			}})
		}
	}
	return all
}

// sqlLink opens a database of one connection, closed at the end of the test.
func sqlLink(t *testing.T, w *world, l link) *sql.DB {
	t.Helper()
	config, err := pgx.ParseConfig(l.dsn(w))
	must(t, err)
	config.DefaultQueryExecMode = l.mode
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func everySQLWay(tx *sql.Tx) transaction {
	m := &multi{transaction: sqlWriteTx{sqlTx: sqlTx{tx}}}
	for _, mode := range modes() {
		w := sqltx.Writer{Outbox: outbox.Writer{Mode: mode}}
		m.ways = append(m.ways, sqlWriteTx{sqlTx{tx}, w}, sqlChangeTx{sqlTx{tx}, w})
	}
	return m
}

// sqlTx is what the paths through database/sql share.
type sqlTx struct{ tx *sql.Tx }

func (t sqlTx) exec(ctx context.Context, statement string) error {
	_, err := t.tx.ExecContext(ctx, statement)
	return err
}

func (t sqlTx) text(ctx context.Context, statement string) (s string, err error) {
	return s, t.tx.QueryRowContext(ctx, statement).Scan(&s)
}

func (t sqlTx) commit(context.Context) error   { return t.tx.Commit() }
func (t sqlTx) rollback(context.Context) error { return t.tx.Rollback() }

type sqlWriteTx struct {
	sqlTx
	w sqltx.Writer
}

func (t sqlWriteTx) write(ctx context.Context, events []outbox.Event) error {
	return t.w.Write(ctx, t.tx, events...)
}

type sqlChangeTx struct {
	sqlTx
	w sqltx.Writer
}

func (t sqlChangeTx) write(ctx context.Context, events []outbox.Event) error {
	return mustChange(t.change(ctx, events, addBusiness, 1))
}

func (t sqlChangeTx) change(ctx context.Context, events []outbox.Event, statement string, args ...any) (bool, error) {
	return t.w.Change(ctx, t.tx, events, statement, args...)
}
