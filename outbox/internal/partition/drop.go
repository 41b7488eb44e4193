package partition

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A Detached is a table that was a partition, as Detach left it.
type Detached struct {
	OID          uint32
	Schema, Name string
	Note         string // what Detach's caller noted
}

// Identifier is the table's name with its schema.
func (d Detached) Identifier() pgx.Identifier { return pgx.Identifier{d.Schema, d.Name} }

// mark begins the comment of a detached table. It is by this that it is found
// again, also after a crash.
func mark(t *table) string { return "walpost: detached from " + t.quoted() + "; " }

// Detach takes p out of its table and reports whether it did: false means that
// p was not attached any more. In the same transaction note is called and what
// it gives is kept in the table's comment, for [Set.Detached] to read. While
// note runs, every transaction that has written into p has ended, and none
// can write into the table at all: note must be short. An error of note's
// leaves all as it was.
func (s Set) Detach(ctx context.Context, db DB, p Partition, note func(ctx context.Context, tx pgx.Tx) (string, error)) (bool, error) {
	done := false
	err := s.change(ctx, db, func(tx pgx.Tx, t *table, list []Partition) error {
		if done = find(list, p.OID); !done {
			return nil
		}
		// Detaching beside writers (CONCURRENTLY) is refused by PostgreSQL
		// where there is a default partition.
		name := p.Identifier().Sanitize()
		if _, err := tx.Exec(ctx, "lock table only "+t.quoted()+" in access exclusive mode"); err != nil {
			return err
		}
		held := s.hold(tx)
		if err := held.exec(ctx, "alter table "+t.quoted()+" detach partition "+name); err != nil {
			return err
		}
		text := ""
		err := held.run(ctx, func() (err error) { text, err = note(ctx, tx); return err })
		if err != nil {
			return err
		}
		return held.exec(ctx, "comment on table "+name+" is "+quoteLiteral(mark(t)+text))
	})
	if err != nil {
		return false, fmt.Errorf("detach partition %s of %s: %w", p.Identifier().Sanitize(), s.Table.Sanitize(), err)
	}
	return done, nil
}

// Detached gives the tables that Detach left and Drop has not removed.
func (s Set) Detached(ctx context.Context, db DB) ([]Detached, error) {
	var list []Detached
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		t, _, err := s.inspect(ctx, tx)
		if err != nil {
			return err
		}
		list, err = t.detached(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the detached partitions of %s: %w", s.Table.Sanitize(), err)
	}
	return list, nil
}

func (t *table) detached(ctx context.Context, tx pgx.Tx) ([]Detached, error) {
	rows, err := tx.Query(ctx, `
		select c.oid, n.nspname, c.relname, d.description
		from pg_class c join pg_namespace n on n.oid = c.relnamespace
		join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = c.oid and d.objsubid = 0
		where c.relkind in ('r', 'p') and not c.relispartition and d.description like 'walpost: detached from %' order by c.relname`)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Detached, err error) {
		err = row.Scan(&d.OID, &d.Schema, &d.Name, &d.Note)
		return d, err
	})
	kept := list[:0]
	for _, d := range list {
		var ours bool
		if d.Note, ours = strings.CutPrefix(d.Note, mark(t)); ours {
			kept = append(kept, d)
		}
	}
	return kept, err
}

// Drop drops a detached table if check agrees, and reports whether it did:
// false means that the table was gone, or attached again. check is called in
// the transaction that drops; its error leaves all as it was.
func (s Set) Drop(ctx context.Context, db DB, d Detached, check func(ctx context.Context, tx pgx.Tx) error) (bool, error) {
	done := false
	err := s.change(ctx, db, func(tx pgx.Tx, t *table, _ []Partition) error {
		list, err := t.detached(ctx, tx)
		if err != nil {
			return err
		}
		if done = slices.Contains(list, d); !done {
			return nil
		}
		if err := check(ctx, tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "drop table "+d.Identifier().Sanitize())
		return err
	})
	if err != nil {
		return false, fmt.Errorf("drop the detached partition %s: %w", d.Identifier().Sanitize(), err)
	}
	return done, nil
}

func quoteLiteral(s string) string {
	// A backslash means itself unless standard_conforming_strings is off, and
	// then two are one: E'' means the same in both.
	return " E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
