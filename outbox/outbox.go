// Package outbox writes business events to PostgreSQL in the transaction that
// changes the state they tell of: both are committed, or neither is.
//
//	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		if _, err := tx.Exec(ctx, `update users set email = $2 where id = $1`, id, email); err != nil {
//			return err
//		}
//		return outbox.Write(ctx, tx, outbox.Event{
//			Topic: "user.updated", AggregateType: "user", AggregateID: id, AggregateVersion: 2,
//			Type: "UserUpdated", Payload: payload,
//		})
//	})
//
// The table is made by the goose migrations in package schema. A relay reads
// it from the write-ahead log and publishes each row to Kafka as a CloudEvent
// (package cloudevent); rows are never updated, and readers of the table are
// not needed.
package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Write checks events and inserts them into the table "outbox" in tx, in the
// order given. It is [Writer.Write] of the zero Writer.
func Write(ctx context.Context, tx pgx.Tx, events ...Event) error {
	return Writer{}.Write(ctx, tx, events...)
}

// Queue checks events and adds their insert to batch. It is [Writer.Queue] of
// the zero Writer.
func Queue(batch *pgx.Batch, events ...Event) error {
	return Writer{}.Queue(batch, events...)
}

// A Writer writes events to an outbox table. The zero Writer writes to the
// table "outbox" found by the search path and has the default size limit. A
// Writer holds no state: copy it and share it between goroutines freely.
type Writer struct {
	// Table names the outbox table: {"outbox"} or {"app", "outbox"}. It is
	// quoted. Defaults to {"outbox"}.
	Table pgx.Identifier

	// MaxBytes is the largest size of one event, payload, names and headers
	// together. Keep it below the max.message.bytes of the topics written to:
	// a larger event would be committed here and refused by the broker later,
	// where nobody can correct it. Defaults to [DefaultMaxBytes].
	MaxBytes int
}

// Write checks events and inserts them in tx in the order given, in one
// statement. It writes all of them or none.
//
// A refused event gives an error that wraps one [*EventError] for every
// problem of every event; nothing has then been sent to PostgreSQL, so tx can
// go on. Any other error comes from PostgreSQL, which has then aborted tx.
// Writing no events does nothing.
func (w Writer) Write(ctx context.Context, tx pgx.Tx, events ...Event) error {
	sql, args, err := w.statement(events)
	if err != nil || sql == "" {
		return err
	}
	if _, err := tx.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("write %d events to the outbox: %w", len(events), err)
	}
	return nil
}

// Queue checks events and adds one statement that inserts them to batch, so
// that they ride in the round trip of the caller's own statements. Send the
// batch in a transaction: outside one, PostgreSQL makes the batch a
// transaction of its own only while it holds no explicit BEGIN or COMMIT.
//
// When events are refused batch is left as it was, and the error is as for
// [Writer.Write]. The insert's own error comes from the batch's results. The
// batch takes over the payloads: leave them unchanged until it has been sent.
func (w Writer) Queue(batch *pgx.Batch, events ...Event) error {
	sql, args, err := w.statement(events)
	if err != nil || sql == "" {
		return err
	}
	batch.Queue(sql, args...)
	return nil
}
