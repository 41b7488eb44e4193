package write_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
)

// A path is one way from an event to the outbox.
type path struct {
	name string

	// open gives a connection of the test's own.
	open func(t *testing.T, w *world) client

	// sqlOnly: the events are arguments of a SQL function. It makes the ids,
	// knows no context, and a refusal aborts the transaction as every error of
	// PostgreSQL does.
	sqlOnly bool
}

// A client has one connection and so one transaction at a time.
type client interface {
	begin(ctx context.Context) (transaction, error)
}

// A transaction writes along one path.
type transaction interface {
	// write writes events; where the path makes the ids, it sets them.
	write(ctx context.Context, events []outbox.Event) error
	exec(ctx context.Context, sql string) error
	text(ctx context.Context, sql string) (string, error)
	commit(ctx context.Context) error
	rollback(ctx context.Context) error
}

// A changer is a transaction that can make the events depend on a change.
type changer interface {
	change(ctx context.Context, events []outbox.Event, sql string, args ...any) (changed bool, err error)
}

func modes() []outbox.Mode { return []outbox.Mode{outbox.Rows, outbox.Packed, outbox.WAL} }

// A link is a way to PostgreSQL and a protocol mode of pgx.
type link struct {
	name string
	mode pgx.QueryExecMode
	dsn  func(*world) string
}

// links gives every link, or one direct and one pooled. It leaves out the mode
// that keeps prepared statements where the pooler gives each transaction
// another connection: PgBouncer follows them from 1.21 on, and Debian 12 has
// 1.18.
func links(every bool) (all []link) {
	direct := func(w *world) string { return w.dsn }
	pooled := func(w *world) string { return w.pooled }
	for _, l := range []link{
		{"direct", pgx.QueryExecModeCacheStatement, direct},
		{"pooled", pgx.QueryExecModeExec, pooled},
		{"direct", pgx.QueryExecModeCacheDescribe, direct},
		{"pooled", pgx.QueryExecModeCacheDescribe, pooled},
		{"direct", pgx.QueryExecModeDescribeExec, direct},
		{"pooled", pgx.QueryExecModeDescribeExec, pooled},
		{"direct", pgx.QueryExecModeExec, direct},
		{"direct", pgx.QueryExecModeSimpleProtocol, direct},
		{"pooled", pgx.QueryExecModeSimpleProtocol, pooled},
	} {
		l.name += ", " + l.mode.String()
		all = append(all, l)
	}
	if !every {
		all = all[:2]
	}
	return all
}

// paths gives every path there is on each of links.
func paths(links []link) (all []path) {
	for _, mode := range modes() {
		all = append(all, pgxPaths(outbox.Writer{Mode: mode}, links)...)
		all = append(all, sqlPaths(outbox.Writer{Mode: mode}, links)...)
	}
	return append(all, emitPaths(links)...)
}
