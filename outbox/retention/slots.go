package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// A SlotError says which slot keeps everything from being detached and
// dropped, and what the operator can do.
type SlotError struct {
	Slot string // empty: there is no slot at all
	What string
	Hint string
}

func (e *SlotError) Error() string { return e.What + ", so nothing is dropped; " + e.Hint }

// behindError names the slot that is furthest behind a position.
type behindError struct {
	slot  string
	bytes uint64
}

func (e *behindError) Error() string {
	return fmt.Sprintf("slot %s has %d bytes of WAL before it", e.slot, e.bytes)
}

// state is what a pass begins with.
type state struct {
	now          time.Time
	defaultBytes int64
	slotError    *SlotError
}

func (r *Retention) look(ctx context.Context) (*state, error) {
	s := new(state)
	err := pgx.BeginFunc(ctx, r.cfg.DB, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `select clock_timestamp(), coalesce((select pg_relation_size(nullif(partdefid, 0)) from pg_partitioned_table where partrelid = to_regclass($1)), 0)`,
			r.cfg.Table.Sanitize()).Scan(&s.now, &s.defaultBytes)
		if err != nil {
			return err
		}
		_, err = r.slots(ctx, tx)
		if e, ok := errors.AsType[*SlotError](err); ok {
			s.slotError, err = e, nil
		}
		return err
	})
	if r.cfg.Now != nil {
		s.now = r.cfg.Now()
	}
	s.now = s.now.UTC()
	return s, err
}

// A slot is what PostgreSQL says of one.
type slot struct {
	name      string
	confirmed uint64
	lost      string // why it delivers nothing any more
}

// slots gives the slots that matter, all of them able to deliver, or a
// *SlotError.
func (r *Retention) slots(ctx context.Context, tx pgx.Tx) ([]slot, error) {
	rows, err := tx.Query(ctx, `
		select s.slot_name::text, coalesce(s.confirmed_flush_lsn, '0/0')::text,
			case when s.slot_type <> 'logical' or s.database <> current_database() then 'is no logical slot of database ' || current_database()
			when coalesce(s.wal_status, '') = 'lost' or to_jsonb(s) ->> 'invalidation_reason' is not null
				then 'is lost' || coalesce(' (' || (to_jsonb(s) ->> 'invalidation_reason') || ')', '')
			else '' end
		from pg_replication_slots s
		where s.slot_name = any($1::text[]) or cardinality($2::text[]) = 0 and s.slot_type = 'logical' and s.database = current_database()
		order by 1`, r.named(), r.all())
	if err != nil {
		return nil, fmt.Errorf("read the replication slots: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s slot, err error) {
		var at string
		if err := row.Scan(&s.name, &at, &s.lost); err != nil {
			return s, err
		}
		s.confirmed, err = parseLSN(at)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the replication slots: %w", err)
	}
	return found, check(found, r.named())
}

// named gives the slots that must exist, never nil.
func (r *Retention) named() []string {
	names := append([]string{}, r.cfg.Slots...)
	if r.cfg.Own != "" {
		names = append(names, r.cfg.Own)
	}
	return names
}

// all gives Slots, never nil: none means that all slots matter.
func (r *Retention) all() []string { return append([]string{}, r.cfg.Slots...) }

// check refuses to go on without the slots that were named, without any, and
// with one that is lost.
func check(found []slot, named []string) error {
	for _, name := range named {
		if !slices.ContainsFunc(found, func(s slot) bool { return s.name == name }) {
			return &SlotError{
				Slot: name, What: "there is no slot " + name,
				Hint: "start its relay, or take the slot out of the configuration when nobody needs what it has not delivered",
			}
		}
	}
	if len(found) == 0 {
		return &SlotError{
			What: "this database has no logical replication slot",
			Hint: "start the relay, which makes its slot; without a relay, drop partitions by hand",
		}
	}
	for _, s := range found {
		if s.lost != "" {
			return &SlotError{
				Slot: s.name, What: fmt.Sprintf("slot %s %s", s.name, s.lost),
				Hint: fmt.Sprintf("publish what it has not delivered, from the table, then drop it: select pg_drop_replication_slot('%s');", s.name),
			}
		}
	}
	return nil
}

// passed refuses with a *behindError, a *SlotError or another error unless
// every slot has confirmed to be at p or beyond.
func (r *Retention) passed(ctx context.Context, tx pgx.Tx, p position) error {
	var system string
	if err := tx.QueryRow(ctx, `select system_identifier::text from pg_control_system()`).Scan(&system); err != nil {
		return fmt.Errorf("identify the server: %w", err)
	}
	if system != p.system {
		return fmt.Errorf("it was detached in PostgreSQL cluster %s and this is %s, so nobody can say what the slots have passed; see whether its rows have been published, and drop it by hand", p.system, system)
	}
	found, err := r.slots(ctx, tx)
	if err != nil {
		return err
	}
	last := slices.MinFunc(found, func(a, b slot) int {
		if a.confirmed < b.confirmed {
			return -1
		}
		return 1
	})
	if last.confirmed < p.lsn {
		return &behindError{slot: last.name, bytes: p.lsn - last.confirmed}
	}
	return nil
}

// oldestInDefault gives the time of the oldest row in the default partition
// from before. Rows at no finite time stay where they are.
func (r *Retention) oldestInDefault(ctx context.Context, before time.Time) (oldest time.Time, found bool, err error) {
	list, err := r.set.List(ctx, r.cfg.DB)
	if err != nil {
		return oldest, false, err
	}
	for _, q := range list {
		if !q.Default {
			continue
		}
		err = pgx.BeginFunc(ctx, r.cfg.DB, func(tx pgx.Tx) error {
			var at *time.Time
			err := tx.QueryRow(ctx, `select min(created_at) from only `+q.Identifier().Sanitize()+` where created_at >= '0001-01-02 00:00:00+00' and created_at < $1`, before).Scan(&at)
			if at != nil {
				oldest, found = *at, true
			}
			return err
		})
	}
	return oldest, found, err
}
