package slot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// Created is a slot just made.
type Created struct {
	// Start is the slot's consistent point: every transaction that commits
	// after it is delivered, none before it.
	Start lsn.Pos

	// ExistingRows tells whether the outbox table held rows at Start, which
	// the slot will never deliver.
	ExistingRows bool
}

// Options say what kind of slot is made.
type Options struct {
	// Failover has standbys keep the slot in step, so that it outlives a
	// failover. Needs PostgreSQL 17; see docs/operations.md for what the
	// servers must be set to.
	Failover bool
}

// Create makes the slot over the replication connection replica, and looks
// over conn at the table exactly as it was at the slot's start: the two see
// the same snapshot. It waits for the transactions that are open now.
func Create(ctx context.Context, replica *pgconn.PgConn, conn *pgx.Conn, names Names, s State, o Options) (Created, error) {
	var c Created
	start, snapshot, err := Export(ctx, replica, names.Slot, o)
	if err != nil {
		return c, err
	}
	c.Start = start
	c.ExistingRows, err = rowsIn(ctx, conn, snapshot, s)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == codeDenied {
		return c, &SetupError{
			What: fmt.Sprintf("may not look for rows older than slot %s: %s", names.Slot, refused.Message),
			Hint: fmt.Sprintf("run as the table's owner: grant select on %s to …;", pgx.Identifier{s.Namespace, s.Table}.Sanitize()),
		}
	}
	if err != nil {
		return c, fmt.Errorf("look for rows older than slot %s: %w", names.Slot, err)
	}
	return c, nil
}

// Export makes the slot over the replication connection replica, and gives its
// consistent point and the name of a snapshot that sees exactly what committed
// before it. The snapshot can be taken until replica is used again or closed.
func Export(ctx context.Context, replica *pgconn.PgConn, name string, o Options) (start lsn.Pos, snapshot string, err error) {
	options := "EXPORT_SNAPSHOT"
	if o.Failover {
		version := replica.ParameterStatus("server_version")
		if Major(version) < failoverSince {
			return 0, "", &SetupError{
				What: fmt.Sprintf("slot %s can't be kept in step with standbys: the server is PostgreSQL %s, that needs %d", name, version, failoverSince),
				Hint: "leave --failover out; after a failover run: relay recover",
			}
		}
		options = "(SNAPSHOT 'export', FAILOVER true)"
	}
	sql := fmt.Sprintf(`CREATE_REPLICATION_SLOT %s LOGICAL pgoutput %s`, pgx.Identifier{name}.Sanitize(), options)
	results, err := replica.Exec(ctx, sql).ReadAll()
	if err != nil {
		return 0, "", fmt.Errorf("create slot %s: %w", name, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return 0, "", fmt.Errorf("create slot %s: unexpected answer", name)
	}
	row := results[0].Rows[0] // slot_name, consistent_point, snapshot_name, output_plugin
	if start, err = lsn.Parse(string(row[1])); err != nil {
		return 0, "", fmt.Errorf("create slot %s: %w", name, err)
	}
	return start, string(row[2]), nil
}

// failoverSince is the first major version with slots that outlive a failover.
const failoverSince = 17

// Major gives the major version of what a server says its version is: 17 of
// "17.2 (Debian 17.2-1)", "17beta1" and "17devel"; 0 where it says none.
func Major(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, err := strconv.Atoi(version[:end])
	if err != nil {
		return 0
	}
	return n
}

func rowsIn(ctx context.Context, conn *pgx.Conn, snapshot string, s State) (found bool, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set transaction snapshot "+quoteLiteral(snapshot)); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "select exists (select from "+pgx.Identifier{s.Namespace, s.Table}.Sanitize()+")").Scan(&found)
	})
	return found, err
}

// Drop removes the slot.
func Drop(ctx context.Context, conn *pgx.Conn, name string) error {
	if _, err := conn.Exec(ctx, "select pg_drop_replication_slot($1)", name); err != nil {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	return nil
}
