package inbox

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	insertInbox = `insert into inbox (consumer_group, event_id, event_time, topic, partition, "offset")`

	claimSQL = insertInbox + ` values ($1, $2, $3, $4, $5, $6) on conflict do nothing`

	lockSQL = `select pg_advisory_xact_lock(hashtextextended($1::text || E'\n' || $2::text, 0))`
)

// lockKey waits for the lock of an ordering key, which tx then holds to its
// end. Whoever adds to the key's dead letters holds it, and whoever takes them
// away; look at the letters in a statement after it.
func lockKey(ctx context.Context, tx pgx.Tx, group, key string) error {
	_, err := tx.Exec(ctx, lockSQL, group, key)
	return err
}

// claimArgs are those of claimSQL.
func (in *Inbox) claimArgs(e *event) []any {
	return []any{in.cfg.Group, e.id, e.time, e.record.Topic, e.record.Partition, e.record.Offset}
}

// apply marks e as handled in tx and calls its handler, or reports false where
// it was handled before. It knows no retries and no dead letters, and leaves
// tx to the caller: to be committed without an error, rolled back with one. An
// error that the event itself is to blame for is a [failure].
//
// Of two that apply an event at once, the second waits for the first's
// transaction to end.
func (in *Inbox) apply(ctx context.Context, tx pgx.Tx, e *event, attempt int) (fresh bool, err error) {
	tag, err := tx.Exec(ctx, claimSQL, in.claimArgs(e)...)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	return true, in.call(ctx, tx, e, attempt)
}

// call calls the handler of e in tx, nil without a Pool, and gives its failure
// or PostgreSQL's error.
func (in *Inbox) call(ctx context.Context, tx pgx.Tx, e *event, attempt int) error {
	switch {
	case e.invalid != nil:
		return &failure{Permanent(e.invalid)}
	case e.handler == nil:
		return &failure{Permanent(errUnknownType)}
	}
	if in.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.cfg.Timeout)
		defer cancel()
	}
	ctx = metadata(ctx, e)
	if tx == nil {
		if err := protect(func() error { return e.handler(ctx, nil, e, attempt) }); err != nil {
			return &failure{err}
		}
		return nil
	}
	guarded := &handlerTx{Tx: tx}
	err := protect(func() error { return e.handler(ctx, guarded, e, attempt) })
	return judge(tx, errors.Join(err, guarded.check()))
}

// errEnded is the failure of a handler that takes its transaction for its own.
var errEnded = errors.New("the handler committed or rolled back the inbox's transaction: return nil or an error instead")

// A handlerTx is the transaction as a handler sees it, which must not end it.
type handlerTx struct {
	pgx.Tx
	ended bool
}

func (tx *handlerTx) Commit(context.Context) error   { tx.ended = true; return errEnded }
func (tx *handlerTx) Rollback(context.Context) error { tx.ended = true; return errEnded }

// check finds a transaction that was ended by a statement too.
func (tx *handlerTx) check() error {
	if tx.ended || !tx.Conn().IsClosed() && tx.Conn().PgConn().TxStatus() == 'I' {
		return Permanent(errEnded)
	}
	return nil
}

// rollbackLimit bounds a rollback, which must be tried after the context has
// ended too.
const rollbackLimit = 5 * time.Second

// rollback ends tx. When it fails pgx closes the connection, which ends the
// transaction as well, so there is no error to tell.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	_ = tx.Rollback(ctx)
}
