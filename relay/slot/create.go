package slot

import (
	"context"
	"errors"
	"fmt"

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

// Create makes the slot over the replication connection replica, and looks
// over conn at the table exactly as it was at the slot's start: the two see
// the same snapshot. It waits for the transactions that are open now.
func Create(ctx context.Context, replica *pgconn.PgConn, conn *pgx.Conn, names Names, s State) (Created, error) {
	var c Created
	sql := fmt.Sprintf(`CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT`, pgx.Identifier{names.Slot}.Sanitize())
	results, err := replica.Exec(ctx, sql).ReadAll()
	if err != nil {
		return c, fmt.Errorf("create slot %s: %w", names.Slot, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return c, fmt.Errorf("create slot %s: unexpected answer", names.Slot)
	}
	row := results[0].Rows[0] // slot_name, consistent_point, snapshot_name, output_plugin
	if c.Start, err = lsn.Parse(string(row[1])); err != nil {
		return c, fmt.Errorf("create slot %s: %w", names.Slot, err)
	}
	c.ExistingRows, err = rowsIn(ctx, conn, string(row[2]), s)
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
