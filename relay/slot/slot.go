// Package slot prepares and examines what the relay needs in PostgreSQL: the
// outbox table, its publication and the replication slot.
package slot

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// State is what is found in a database, read on one connection.
type State struct {
	SystemID  string // of the cluster: positions of another one mean nothing here
	Database  string
	Namespace string // of the outbox table
	Table     string
	TableOID  uint32

	Published bool // the publication exists and publishes the table's inserts by its root

	Exists       bool // the slot
	Confirmed    lsn.Pos
	ActivePID    int32  // of the walsender that has the slot; 0: nobody
	Invalidation string // why the slot is useless; empty: it is not
}

// Names are the names given to what the relay needs.
type Names struct {
	Table       string // "outbox" or "schema.outbox", found by the search path
	Publication string
	Slot        string
}

// Inspect reads the state and refuses what cannot work, with the next command
// to type: a server without logical decoding, a missing table, a publication
// that is not the relay's kind, a slot that is not pgoutput's or another
// database's.
func Inspect(ctx context.Context, conn *pgx.Conn, names Names) (State, error) {
	var s State
	var walLevel string
	err := conn.QueryRow(ctx, `
		select (select system_identifier::text from pg_control_system()), current_database(), current_setting('wal_level')`,
	).Scan(&s.SystemID, &s.Database, &walLevel)
	if err != nil {
		return s, fmt.Errorf("identify the server: %w", err)
	}
	if walLevel != "logical" {
		return s, &SetupError{
			What: fmt.Sprintf("wal_level is %q, the relay needs \"logical\"", walLevel),
			Hint: "run: alter system set wal_level = logical; and restart PostgreSQL",
		}
	}
	if err := s.readTable(ctx, conn, names); err != nil {
		return s, err
	}
	if err := s.readPublication(ctx, conn, names); err != nil {
		return s, err
	}
	return s, s.readSlot(ctx, conn, names)
}

func (s *State) readTable(ctx context.Context, conn *pgx.Conn, names Names) error {
	err := conn.QueryRow(ctx, `
		select c.oid, n.nspname, c.relname
		from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where c.oid = to_regclass($1)`, quoteTable(names.Table),
	).Scan(&s.TableOID, &s.Namespace, &s.Table)
	if errors.Is(err, pgx.ErrNoRows) {
		return &SetupError{
			What: fmt.Sprintf("database %s has no table %s", s.Database, names.Table),
			Hint: `apply the migrations: goose -dir migrations/… postgres "$DSN" up`,
		}
	}
	if err != nil {
		return fmt.Errorf("find table %s: %w", names.Table, err)
	}
	return nil
}

func (s *State) readPublication(ctx context.Context, conn *pgx.Conn, names Names) error {
	var inserts, viaRoot, hasTable bool
	err := conn.QueryRow(ctx, `
		select p.pubinsert, p.pubviaroot,
			p.puballtables or exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = $2)
		from pg_publication p where p.pubname = $1`, names.Publication, s.TableOID,
	).Scan(&inserts, &viaRoot, &hasTable)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find publication %s: %w", names.Publication, err)
	}
	if !inserts || !viaRoot || !hasTable {
		return &SetupError{
			What: fmt.Sprintf("publication %s does not publish the inserts of %s.%s by its root (publish inserts: %t, publish_via_partition_root: %t, has the table: %t)",
				names.Publication, s.Namespace, s.Table, inserts, viaRoot, hasTable),
			Hint: "give the relay a publication of its own: --publication another_name",
		}
	}
	s.Published = true
	return nil
}

func (s *State) readSlot(ctx context.Context, conn *pgx.Conn, names Names) error {
	var plugin, database, confirmed, walStatus string
	err := conn.QueryRow(ctx, `
		select coalesce(plugin, ''), coalesce(database, ''), coalesce(confirmed_flush_lsn::text, '0/0'),
			coalesce(active_pid, 0), coalesce(wal_status, '')
		from pg_replication_slots where slot_name = $1`, names.Slot,
	).Scan(&plugin, &database, &confirmed, &s.ActivePID, &walStatus)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find slot %s: %w", names.Slot, err)
	}
	if plugin != "pgoutput" || database != s.Database {
		return &SetupError{
			What: fmt.Sprintf("slot %s belongs to plugin %q and database %q, not to pgoutput and %q", names.Slot, plugin, database, s.Database),
			Hint: "give the relay a slot of its own: --slot another_name",
		}
	}
	if walStatus == "lost" {
		s.Invalidation = "PostgreSQL has removed WAL that it had not delivered (wal_status = lost; see max_slot_wal_keep_size)"
	}
	s.Exists = true
	s.Confirmed, err = lsn.Parse(confirmed)
	return err
}

// Publish creates the publication.
func Publish(ctx context.Context, conn *pgx.Conn, names Names, s State) error {
	sql := fmt.Sprintf(`create publication %s for table %s with (publish = 'insert', publish_via_partition_root = true)`,
		pgx.Identifier{names.Publication}.Sanitize(), pgx.Identifier{s.Namespace, s.Table}.Sanitize())
	if _, err := conn.Exec(ctx, sql); err != nil {
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == codeDenied {
			return &SetupError{
				What: fmt.Sprintf("may not create publication %s: %s", names.Publication, refused.Message),
				Hint: "run as the table's owner: " + sql + ";",
			}
		}
		return fmt.Errorf("create publication %s: %w", names.Publication, err)
	}
	return nil
}

// quoteTable quotes the parts of a name, so that to_regclass takes upper case
// and odd letters as they are written.
func quoteTable(name string) string {
	return pgx.Identifier(strings.SplitN(name, ".", 2)).Sanitize()
}
