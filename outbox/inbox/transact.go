package inbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An outcome is what became of an event that did not fail.
type outcome uint8

const (
	handled   outcome = iota
	duplicate         // it was handled, or put into inbox_dead, before
	blocked           // its key has dead letters: it must wait behind them
	unblocked         // those it was to wait behind are gone
	waiting           // it waits behind a dead letter
	dead              // it is a dead letter
)

const (
	// claimFreeSQL marks an event as handled unless its key is blocked. An
	// open transaction that claims the same event is waited for.
	claimFreeSQL = insertInbox + ` select $1::text, $2::text, $3::timestamptz, $4::text, $5::integer, $6::bigint` +
		` where not exists (select from inbox_dead where consumer_group = $1 and ordering_key = $7) on conflict do nothing`

	handledSQL = `select exists (select from inbox where event_id = $2 and consumer_group = $1 and event_time = $3)`
)

// transact handles a fetched event in a transaction of its own, which begins
// in one round trip with the claim. The error is as of [Inbox.apply].
func (in *Inbox) transact(ctx context.Context, e *event, attempt int) (outcome, error) {
	conn, err := in.cfg.Pool.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Release()
	var batch pgx.Batch
	batch.BeginTx(pgx.TxOptions{IsoLevel: in.cfg.Isolation})
	batch.Queue(claimFreeSQL, append(in.claimArgs(e), e.key)...)
	results := conn.SendBatch(ctx, &batch)
	tx := results.Tx()
	_, err = results.Exec()
	var claimed pgconn.CommandTag
	if err == nil {
		claimed, err = results.Exec()
	}
	if err = errors.Join(err, results.Close()); err != nil {
		rollback(ctx, tx)
		return 0, fmt.Errorf("claim event: %w", err)
	}
	if claimed.RowsAffected() == 0 {
		defer rollback(ctx, tx)
		// Not by a look for letters: they may be gone since.
		var before bool
		if err := tx.QueryRow(ctx, handledSQL, in.cfg.Group, e.id, e.time).Scan(&before); err != nil {
			return 0, fmt.Errorf("look for event: %w", err)
		}
		if before {
			return duplicate, nil
		}
		return blocked, nil
	}
	if err := in.call(ctx, tx, e, attempt); err != nil {
		rollback(ctx, tx)
		return 0, err
	}
	return handled, commit(ctx, tx)
}

// commit commits what a handler did. An error is a [failure] where the handler
// is to blame, for a constraint that is checked at the end or a failed
// statement of which it said nothing.
func commit(ctx context.Context, tx pgx.Tx) error {
	err := tx.Commit(ctx)
	var e *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return &failure{errors.New("a statement of the handler failed, and the handler returned nil: return the error, or use a savepoint")}
	case errors.As(err, &e) && !isOutage(err):
		return &failure{fmt.Errorf("commit: %w", err)}
	default:
		return fmt.Errorf("commit: %w", err)
	}
}
