package partition

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Made is a partition that was made.
type Made struct {
	Partition

	// Moved is the number of rows that were moved into it from the default
	// partition.
	Moved int64
}

// checkName names the constraint that spares an attachment the reading of the
// new partition. It is gone before the partition is seen.
const checkName = "walpost_bounds"

// margin is what a partition's beginning must be away for nobody to write into
// its range: clocks and long transactions.
const margin = time.Minute

// Make makes the partitions that are missing for the periods from that of
// first to the last that begins before until, one transaction each, and gives
// those it made, also beside an error.
//
// Rows of that time in the default partition are moved in the transaction that
// makes the partition: readers see each of them once at any time, and since
// they are written into a table that is in no publication they are not
// published again. Copying them holds nobody up; writers wait while the rows
// that came meanwhile follow and PostgreSQL looks once through the default
// partition, for HoldTimeout at the longest.
func (s Set) Make(ctx context.Context, db DB, first, until time.Time) ([]Made, error) {
	list, err := s.List(ctx, db)
	if err != nil {
		return nil, err
	}
	var all []Made
	for _, p := range gaps(list, s.Period, first, until) {
		made, err := s.makeOne(ctx, db, p)
		if code(err) == codeCheckViolation {
			// Rows came into the range just before it was locked; now they are
			// seen and moved.
			made, err = s.makeOne(ctx, db, p)
		}
		if err != nil {
			return all, fmt.Errorf("make the partition of %s from %s: %w", s.Table.Sanitize(), p.From.Format(time.RFC3339), err)
		}
		if made != nil {
			all = append(all, *made)
		}
	}
	return all, nil
}

// makeOne makes p, and gives nil where another runner has made it.
func (s Set) makeOne(ctx context.Context, db DB, p Partition) (made *Made, err error) {
	err = s.change(ctx, db, func(tx pgx.Tx, t *table, list []Partition) error {
		made = nil
		if !slices.Contains(gaps(list, s.Period, p.From, p.To), p) {
			return nil
		}
		detached, err := t.detached(ctx, tx)
		if err != nil {
			return err
		}
		made = &Made{Partition: p}
		made.Schema, made.Name = t.schema, s.freeName(t, p.From, detached)
		return s.attach(ctx, tx, t, list, made)
	})
	return made, err
}

// freeName gives the name of a new partition. A detached one of the same time
// may still have it: rows of that time came after it was detached.
func (s Set) freeName(t *table, from time.Time, detached []Detached) string {
	name := s.Period.Name(t.name, from)
	for n := 2; slices.ContainsFunc(detached, func(d Detached) bool { return d.Schema == t.schema && d.Name == name }); n++ {
		name = fit(s.Period.Name(t.name, from), "_"+strconv.Itoa(n))
	}
	return name
}

// attach makes a table of its own, fills it and attaches it: to make it as a
// partition at once would lock the whole table against every writer.
func (s Set) attach(ctx context.Context, tx pgx.Tx, t *table, list []Partition, m *Made) error {
	storage, err := storageOf(ctx, tx, list)
	if err != nil {
		return err
	}
	if err := t.create(ctx, tx, m, storage); err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(p Partition) bool { return p.Default })
	if i < 0 {
		return s.hold(tx).exec(ctx, t.attachment(m)...)
	}
	rest := list[i]
	if err := s.refuseLarge(ctx, tx, rest); err != nil {
		return err
	}
	if err := t.move(ctx, tx, rest, m); err != nil {
		return err
	}
	if m.Moved == 0 && m.From.After(t.now.Add(margin)) {
		// Nobody writes into this range. Attaching locks the default partition
		// only, where nobody writes either once partitions are made ahead.
		return s.hold(tx).exec(ctx, t.attachment(m)...)
	}
	// A writer whose row has been sent to the default partition already, and
	// waits for us there, would be refused afterwards, as the row no longer
	// belongs there. So all are made to wait in front of the table instead.
	err = s.lock(ctx, tx,
		"lock table only "+t.quoted()+" in share row exclusive mode",
		"lock table only "+rest.Identifier().Sanitize()+" in access exclusive mode")
	if err != nil {
		return err
	}
	held := s.hold(tx)
	if err := held.run(ctx, func() error { return t.move(ctx, tx, rest, m) }); err != nil {
		return err
	}
	return held.exec(ctx, t.attachment(m)...)
}

// readRate is what PostgreSQL can be trusted to read in a second.
const readRate = 256 << 20

// refuseLarge spares writers the wait for what would not be done in time:
// attaching anything reads the whole default partition under a lock on it.
func (s Set) refuseLarge(ctx context.Context, tx pgx.Tx, rest Partition) error {
	var size int64
	if err := tx.QueryRow(ctx, `select pg_relation_size($1::oid)`, rest.OID).Scan(&size); err != nil {
		return err
	}
	if limit := s.holdTimeout(); size > int64(limit.Seconds()*readRate) {
		return &SetupError{
			What: fmt.Sprintf("the default partition %s has %d MB, more than can be read in %v while writers wait", rest.Identifier().Sanitize(), size>>20, limit),
			Hint: "set it aside by hand, which takes a moment: docs/operations.md, Retention, \"A large default partition\"; or raise the hold timeout once, at a quiet time",
		}
	}
	return nil
}

// create makes the table, as its parent is. Indexes are made now, to be taken
// over by the attachment; identity columns are the parent's affair.
func (t *table) create(ctx context.Context, tx pgx.Tx, m *Made, storage string) error {
	column := pgx.Identifier{t.column}.Sanitize()
	sql := fmt.Sprintf(`create table %s (like %s including all excluding identity excluding statistics excluding comments, constraint %s check (%s >= %s and %s < %s))%s`,
		m.Identifier().Sanitize(), t.quoted(), checkName, column, literal(m.From), column, literal(m.To), storage)
	_, err := tx.Exec(ctx, sql)
	if code(err) == codeDuplicateTable {
		return &SetupError{
			What: fmt.Sprintf("table %s exists and is no partition of %s", m.Identifier().Sanitize(), t.quoted()),
			Hint: "attach, rename or drop it: it has the name of a partition that is to be made",
		}
	}
	if err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, `select to_regclass($1)::oid`, m.Identifier().Sanitize()).Scan(&m.OID); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, fmt.Sprintf(`alter table %s owner to %s`, m.Identifier().Sanitize(), pgx.Identifier{t.owner}.Sanitize()))
	return err
}

// attachment gives the statements that attach the table.
func (t *table) attachment(m *Made) []string {
	name := m.Identifier().Sanitize()
	return []string{
		fmt.Sprintf(`alter table %s attach partition %s for values from (%s) to (%s)`, t.quoted(), name, literal(m.From), literal(m.To)),
		fmt.Sprintf(`alter table %s drop constraint %s`, name, checkName),
	}
}

// move moves the rows of the new partition's range out of the default one.
func (t *table) move(ctx context.Context, tx pgx.Tx, from Partition, m *Made) error {
	names := make([]string, len(t.columns))
	for i, name := range t.columns {
		names[i] = pgx.Identifier{name}.Sanitize()
	}
	columns, key := strings.Join(names, ", "), pgx.Identifier{t.column}.Sanitize()
	tag, err := tx.Exec(ctx, fmt.Sprintf(
		`with moved as (delete from only %s where %s >= %s and %s < %s returning %s) insert into %s (%s) select %s from moved`,
		from.Identifier().Sanitize(), key, literal(m.From), key, literal(m.To), columns, m.Identifier().Sanitize(), columns, columns))
	if err != nil {
		return fmt.Errorf("move rows out of %s: %w", from.Identifier().Sanitize(), err)
	}
	m.Moved += tag.RowsAffected()
	return nil
}
