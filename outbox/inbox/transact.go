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

// claimFreeSQL marks an event as handled unless its key is blocked. An open
// transaction that claims the same event is waited for.
const claimFreeSQL = `with blocked as (select exists (select from inbox_dead where consumer_group = $1 and ordering_key = $7) as yes),` +
	` claimed as (` + insertInbox + ` select $1::text, $2::text, $3::timestamptz, $4::text, $5::integer, $6::bigint from blocked where not yes` +
	` on conflict do nothing returning true)` +
	` select (select yes from blocked), exists (select from claimed)`

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
	var isBlocked, claimed bool
	_, err = results.Exec()
	if err == nil {
		err = results.QueryRow().Scan(&isBlocked, &claimed)
	}
	if err = errors.Join(err, results.Close()); err != nil {
		rollback(ctx, results.Tx())
		return 0, fmt.Errorf("claim event: %w", err)
	}
	if isBlocked || !claimed {
		rollback(ctx, results.Tx())
		if isBlocked {
			return blocked, nil
		}
		return duplicate, nil
	}
	if err := in.call(ctx, results.Tx(), e, attempt); err != nil {
		rollback(ctx, results.Tx())
		return 0, err
	}
	return handled, commit(ctx, results.Tx())
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
