package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A table reads the outbox table, and what retention has detached from it
// before every slot had passed it. All reading is by the created_at column,
// since a row does not tell where in the log it is.
type table struct {
	since    time.Time       // zero: all rows
	doubtful map[string]bool // topics of which Kafka may have deleted events

	rows string // the rows looked at: a query for FROM, with $1 = since
}

// A storedRow is a [relay.StoredRow] that may hold several events.
type storedRow struct{ relay.StoredRow }

func (r *storedRow) packed() bool { return r.Topic == "" && r.Type == envelope.RowType }

const isPacked = `(r.topic = '' and r.type = '` + envelope.RowType + `')`

// open finds the tables to read, and makes the temporary one for the ids of
// what Kafka has.
func (t *table) open(ctx context.Context, conn *pgx.Conn, state slot.State, stored position.Position) error {
	payload := "payload"
	var oid uint32
	err := conn.QueryRow(ctx, `select coalesce((select atttypid from pg_attribute where attrelid = $1 and attname = 'payload'), 0)`, state.TableOID).Scan(&oid)
	if err != nil {
		return fmt.Errorf("look at table %s: %w", state.Table, err)
	}
	if oid != pgtype.ByteaOID {
		payload = "convert_to(payload::text, 'UTF8')"
	}
	tables, err := detached(ctx, conn, state, stored)
	if err != nil {
		return err
	}
	var parts []string
	for _, name := range append([]pgx.Identifier{{state.Namespace, state.Table}}, tables...) {
		parts = append(parts, `select id, topic, aggregate_type, aggregate_id, aggregate_version, type, `+payload+` as payload, headers::text as headers, created_at
			from `+name.Sanitize()+` where $1::timestamptz is null or created_at >= $1`)
	}
	t.rows = "(" + strings.Join(parts, " union all ") + ") r"
	if _, err := conn.Exec(ctx, `create temporary table walpost_known (id uuid not null, sequence bigint not null, recent boolean not null)`); err != nil {
		return fmt.Errorf("make a temporary table for the ids that Kafka has: %w; run as the database's owner: grant temporary on database … to …", err)
	}
	return nil
}

// detached gives the tables that retention has detached and that hold events
// behind the stored position.
func detached(ctx context.Context, conn *pgx.Conn, state slot.State, stored position.Position) ([]pgx.Identifier, error) {
	rows, err := conn.Query(ctx, `
		select n.nspname, c.relname, substring(d.description from 'every slot must pass ([0-9A-F]+/[0-9A-F]+) '), coalesce(substring(d.description from ' of system ([0-9]+) '), '')
		from pg_description d join pg_class c on c.oid = d.objoid join pg_namespace n on n.oid = c.relnamespace
		where d.classoid = 'pg_class'::regclass and d.objsubid = 0 and starts_with(d.description, 'walpost: detached from ' || $1)
		order by 1, 2`, pgx.Identifier{state.Namespace, state.Table}.Sanitize())
	if err != nil {
		return nil, fmt.Errorf("look for detached partitions: %w", err)
	}
	var tables []pgx.Identifier
	var schema, name, system string
	var at *string
	_, err = pgx.ForEachRow(rows, []any{&schema, &name, &at, &system}, func() error {
		if at != nil && system == stored.SystemID {
			if passed, err := lsn.Parse(*at); err == nil && passed <= stored.End {
				return nil
			}
		}
		tables = append(tables, pgx.Identifier{schema, name})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for detached partitions: %w", err)
	}
	return tables, nil
}

func (t *table) from() any {
	if t.since.IsZero() {
		return nil
	}
	return t.since
}

// topics gives every topic that the rows name, from all of the table.
func (t *table) topics(ctx context.Context, conn *pgx.Conn, kafka *relay.Offline) (map[string]struct{}, error) {
	found := make(map[string]struct{})
	rows, err := conn.Query(ctx, "select distinct topic from "+t.rows+" where not "+isPacked, nil)
	if err != nil {
		return nil, fmt.Errorf("read the topics in the table: %w", err)
	}
	var topic string
	if _, err := pgx.ForEachRow(rows, []any{&topic}, func() error { found[topicOf(topic)] = struct{}{}; return nil }); err != nil {
		return nil, fmt.Errorf("read the topics in the table: %w", err)
	}
	packed, err := conn.Query(ctx, "select uuid_send(id), created_at, payload from "+t.rows+" where "+isPacked, nil)
	if err != nil {
		return nil, fmt.Errorf("read the topics in packed rows: %w", err)
	}
	var id []byte
	row := relay.StoredRow{Event: envelope.Event{Type: envelope.RowType}}
	_, err = pgx.ForEachRow(packed, []any{&id, &row.CreatedAt, &row.Payload}, func() error {
		row.ID = [16]byte(id)
		err := kafka.Events(&row, func(e *relay.StoredRow) error {
			if topic := topicOf(e.Topic); !has(found, topic) {
				found[strings.Clone(topic)] = struct{}{}
			}
			return nil
		})
		if _, ok := errors.AsType[*relay.RowError](err); ok {
			return nil // none of it was published; it may be a dead letter
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the topics in packed rows: %w", err)
	}
	return found, nil
}

func has(set map[string]struct{}, s string) bool { _, ok := set[s]; return ok }

// topicOf gives the topic that the relay publishes to.
func topicOf(topic string) string {
	if topic == "" {
		return relay.UnknownTopic
	}
	return topic
}

// count counts the rows that are events: all, and those that Kafka has.
func (t *table) count(ctx context.Context, tx pgx.Tx) (counts, error) {
	var c counts
	err := tx.QueryRow(ctx, `select count(*), count(*) filter (where not `+isPacked+`),
			count(*) filter (where not `+isPacked+` and exists (select from pg_temp.walpost_known k where k.id = r.id))
		from `+t.rows, t.from()).Scan(&c.rows, &c.events, &c.known)
	if err != nil {
		return c, fmt.Errorf("count the rows: %w", err)
	}
	return c, nil
}

// fetchBytes is about how much one fetch takes into memory.
const fetchBytes = 8 << 20

// missing gives, in batches, the rows that Kafka does not have and all that are
// packed (a packed row may have the id of its first event), in the order in which they are to be published: those of one
// aggregate by its version, all else by id, which is by the time it was made.
// An event without a version has its place by its id, too.
//
// The time of an id that is not of version 7 says nothing: created_at stands
// in for it.
func (t *table) missing(ctx context.Context, tx pgx.Tx, each func([]storedRow) error) error {
	_, err := tx.Exec(ctx, `declare walpost_missing no scroll cursor for
		select uuid_send(id), topic, aggregate_type, aggregate_id, coalesce(aggregate_version, 0), type, payload, headers, created_at
		from (select *, (case when substr(id::text, 15, 1) = '7' then id::text else
				overlay(lpad(to_hex(floor(extract(epoch from created_at) * 1000)::bigint), 12, '0') placing '-' from 9 for 0) || '-' || id::text end) collate "C" as made
			from `+t.rows+`
			where `+isPacked+` or not exists (select from pg_temp.walpost_known k where k.id = r.id)) m
		order by max(made) over (partition by aggregate_type, aggregate_id, aggregate_version is null, topic = '' and type = '`+envelope.RowType+`'
			order by aggregate_version, made rows unbounded preceding), aggregate_version, made`, t.from())
	if err != nil {
		return fmt.Errorf("read the rows that Kafka lacks: %w", err)
	}
	var batch []storedRow
	for n := 1; ; {
		rows, err := tx.Query(ctx, fmt.Sprintf("fetch %d from walpost_missing", n))
		if err != nil {
			return fmt.Errorf("read the rows that Kafka lacks: %w", err)
		}
		batch = batch[:0]
		bytes := 0
		var id, headers []byte
		var r storedRow
		_, err = pgx.ForEachRow(rows, []any{&id, &r.Topic, &r.AggregateType, &r.AggregateID, &r.AggregateVersion, &r.Type, &r.Payload, &headers, &r.CreatedAt}, func() error {
			row := r
			row.ID, row.JSON = [16]byte(id), headers
			bytes += len(r.Payload) + len(headers) + 256
			batch = append(batch, row)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the rows that Kafka lacks: %w", err)
		}
		if len(batch) == 0 {
			_, err := tx.Exec(ctx, "close walpost_missing")
			return err
		}
		if err := each(batch); err != nil {
			return err
		}
		n = min(max(fetchBytes*len(batch)/bytes, 1), 2*n, 5000)
	}
}

// errBuried says that a packed row is a dead letter.
var errBuried = errors.New("the row is a dead letter")

// packedKnown gives those events of a packed row that Kafka has. A row that
// can't be read and is a dead letter as a whole gives errBuried.
func (t *table) packedKnown(ctx context.Context, tx pgx.Tx, kafka *relay.Offline, r *relay.StoredRow) (map[[16]byte]struct{}, error) {
	var ids []string
	if err := kafka.Events(r, func(e *relay.StoredRow) error {
		ids = append(ids, pgtype.UUID{Bytes: e.ID, Valid: true}.String())
		return nil
	}); err != nil {
		id := pgtype.UUID{Bytes: r.ID, Valid: true}.String()
		var buried bool
		if asked := tx.QueryRow(ctx, "select exists (select from pg_temp.walpost_known where id = $1::text::uuid)", id).Scan(&buried); asked != nil || !buried {
			return nil, errors.Join(err, asked)
		}
		return nil, errBuried
	}
	rows, err := tx.Query(ctx, "select uuid_send(id) from pg_temp.walpost_known where id = any($1::text[]::uuid[])", ids)
	if err != nil {
		return nil, fmt.Errorf("compare a packed row: %w", err)
	}
	known := make(map[[16]byte]struct{})
	var id []byte
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { known[[16]byte(id)] = struct{}{}; return nil }); err != nil {
		return nil, fmt.Errorf("compare a packed row: %w", err)
	}
	return known, nil
}
