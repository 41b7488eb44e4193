// Package partition makes, detaches and drops the partitions of a table that
// is partitioned by range of one timestamptz column, beside its writers.
//
// Several runners may work on one table at once: each change is a transaction
// under an advisory lock. A lock that writers would feel is waited for only
// for a moment, given up and asked for again, so that they never stand in a
// long queue behind it.
package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Set is the partitions of one table. It holds no state: copy it freely, and
// use it from several goroutines if the connections it is given allow that.
type Set struct {
	// Table is the partitioned table, {"outbox"} or {"app", "outbox"}. It is
	// quoted; without a schema the search path finds it. It must be set, and
	// the role that works on it must be its owner or a member of the owner.
	Table pgx.Identifier

	// Period is how much time a new partition holds. Defaults to [Day].
	Period Period

	// LockTimeout is the longest wait for a lock, during which writers may
	// stand behind us. The first attempts wait less, and between two of them
	// is a pause of several times the wait. Defaults to 200 ms.
	LockTimeout time.Duration

	// HoldTimeout bounds the time for which writers may wait once a lock is
	// ours; what would take longer is rolled back with an error. Only a large
	// default partition makes it long. Defaults to 2 s.
	HoldTimeout time.Duration
}

// A DB is a pgx connection or pool.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// A Partition is one partition that is attached to its table. It holds the
// rows from From, including it, to To, excluding it; a zero time means no
// bound on that side.
type Partition struct {
	OID          uint32
	Schema, Name string
	From, To     time.Time

	// Default marks the partition that takes what no other does.
	Default bool

	// Pending marks a DETACH … CONCURRENTLY that was not finished: it takes no
	// rows any more.
	Pending bool

	// Foreign marks what is no plain table: a foreign table, or one that is
	// partitioned itself.
	Foreign bool
}

// Identifier is the partition's name with its schema.
func (p Partition) Identifier() pgx.Identifier { return pgx.Identifier{p.Schema, p.Name} }

// A SetupError says what in PostgreSQL keeps partitions from being kept, and
// what the operator can do. It does not pass by itself.
type SetupError struct {
	What string
	Hint string
}

func (e *SetupError) Error() string { return e.What + "; " + e.Hint }

// table is what the catalogs say of the partitioned table.
type table struct {
	oid          uint32
	schema, name string
	owner        string
	column       string   // of the partition key
	columns      []string // that can be inserted into
	now          time.Time
}

func (t *table) identifier() pgx.Identifier { return pgx.Identifier{t.schema, t.name} }
func (t *table) quoted() string             { return t.identifier().Sanitize() }

// List gives the attached partitions in the order of time, the default
// partition last.
func (s Set) List(ctx context.Context, db DB) ([]Partition, error) {
	var list []Partition
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, found, err := s.inspect(ctx, tx)
		list = found
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the partitions of %s: %w", s.Table.Sanitize(), err)
	}
	return list, nil
}

// inspect reads the table and its partitions, and refuses what is not
// partitioned as it must be. It sets the form of times for the rest of tx.
func (s Set) inspect(ctx context.Context, tx pgx.Tx) (*table, []Partition, error) {
	if len(s.Table) == 0 {
		return nil, nil, errors.New("no table is named")
	}
	// The text of a bound follows the session's settings.
	_, err := tx.Exec(ctx, `select set_config('datestyle', 'ISO', true), set_config('timezone', 'UTC', true)`)
	if err != nil {
		return nil, nil, err
	}
	t := new(table)
	var plain bool
	err = tx.QueryRow(ctx, `
		select c.oid, n.nspname, c.relname, pg_get_userbyid(c.relowner), clock_timestamp(), coalesce(a.attname, ''),
			coalesce(p.partstrat = 'r' and p.partnatts = 1 and a.atttypid = 'timestamptz'::regtype and a.attnotnull, false),
			array(select k.attname::text from pg_attribute k
				where k.attrelid = c.oid and k.attnum > 0 and not k.attisdropped and k.attgenerated = '' order by k.attnum)
		from pg_class c join pg_namespace n on n.oid = c.relnamespace
		left join pg_partitioned_table p on p.partrelid = c.oid
		left join pg_attribute a on a.attrelid = c.oid and a.attnum = p.partattrs[0]
		where c.oid = to_regclass($1)`, s.Table.Sanitize(),
	).Scan(&t.oid, &t.schema, &t.name, &t.owner, &t.now, &t.column, &plain, &t.columns)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil, &SetupError{What: "there is no table " + s.Table.Sanitize(), Hint: "apply the migrations, or name its schema"}
	case err != nil:
		return nil, nil, fmt.Errorf("find table %s: %w", s.Table.Sanitize(), err)
	case !plain:
		return nil, nil, &SetupError{
			What: fmt.Sprintf("table %s is not partitioned by range of one timestamptz column that is not null", t.quoted()),
			Hint: "compare it with the migrations: … partition by range (created_at)",
		}
	}
	list, err := t.partitions(ctx, tx)
	return t, list, err
}

func (t *table) partitions(ctx context.Context, tx pgx.Tx) ([]Partition, error) {
	rows, err := tx.Query(ctx, `
		select c.oid, n.nspname, c.relname, c.relkind <> 'r', i.inhdetachpending, coalesce(pg_get_expr(c.relpartbound, c.oid), '')
		from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
		where i.inhparent = $1`, t.oid)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Partition, err error) {
		var bound string
		if err := row.Scan(&p.OID, &p.Schema, &p.Name, &p.Foreign, &p.Pending, &bound); err != nil {
			return p, err
		}
		if p.From, p.To, p.Default, err = parseBound(bound); err != nil {
			return p, fmt.Errorf("partition %s: %w", p.Identifier().Sanitize(), err)
		}
		return p, nil
	})
	slices.SortFunc(list, order)
	return list, err
}

func find(list []Partition, oid uint32) bool {
	return slices.ContainsFunc(list, func(p Partition) bool { return p.OID == oid })
}
