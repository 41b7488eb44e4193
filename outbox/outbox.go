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
// it from the write-ahead log and publishes each event to Kafka as a
// CloudEvent (package cloudevent); rows are never updated, and readers of the
// table are not needed.
//
// [Typed] makes events of Go values; [Metadata] puts the request into their
// headers. Package sqltx writes through database/sql, aggregate keeps a state
// and its events together, inbox handles the events of others, and outboxtest
// looks at what a test has written.
package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DefaultPrefix is the prefix of the messages that Mode [WAL] writes, and that
// a relay reads, where none is configured.
const DefaultPrefix = "walpost.outbox"

// Write checks events and writes them in tx, in the order given. It is
// [Writer.Write] of the zero Writer.
func Write(ctx context.Context, tx pgx.Tx, events ...Event) error {
	return Writer{}.Write(ctx, tx, events...)
}

// Queue checks events and adds their statement to batch. It is [Writer.Queue]
// of the zero Writer.
func Queue(ctx context.Context, batch *pgx.Batch, events ...Event) error {
	return Writer{}.Queue(ctx, batch, events...)
}

// A Mode says how events travel through PostgreSQL. The records in Kafka are
// the same in every mode, and one relay reads all of them.
type Mode uint8

// The modes.
const (
	// Rows writes one row an event, which can be queried and from which a lost
	// slot is recovered.
	Rows Mode = iota

	// Packed writes the events of a call into one row (several where they are
	// large; see package envelope). Reading them from the write-ahead log
	// costs a fraction, but they can't be queried by their columns.
	Packed

	// WAL writes the events of a call into the write-ahead log only, as a
	// logical decoding message. No table is touched, so the events add no
	// conflicts under SERIALIZABLE and nothing is to be cleared away. They can
	// be read once, by slots that exist at the time: a lost slot loses them.
	WAL
)

func (m Mode) String() string {
	switch m {
	case Rows:
		return "rows"
	case Packed:
		return "packed"
	case WAL:
		return "wal"
	default:
		return fmt.Sprintf("Mode(%d)", uint8(m))
	}
}

// A Writer writes events. The zero Writer writes rows into the table "outbox"
// found by the search path and has the default size limit. A Writer holds no
// state: copy it and share it between goroutines freely.
type Writer struct {
	// Mode is how events travel. Defaults to [Rows].
	Mode Mode

	// Table names the outbox table: {"outbox"} or {"app", "outbox"}. It is
	// quoted. Mode [WAL] does not use it. Defaults to {"outbox"}.
	Table pgx.Identifier

	// Prefix marks the messages of Mode [WAL]: a relay reads those of its own
	// prefix only. Defaults to [DefaultPrefix].
	Prefix string

	// MaxBytes is the largest size of one event, payload, names and headers
	// together. Keep it below the max.message.bytes of the topics written to:
	// a larger event would be committed here and refused by the broker later,
	// where nobody can correct it. Defaults to [DefaultMaxBytes].
	MaxBytes int

	// TopicMaxBytes is MaxBytes for the topics named, as package limits learns
	// it from Kafka. Other topics keep MaxBytes.
	TopicMaxBytes map[string]int

	// Hooks see the Writer at work, and may add headers. Defaults to none.
	Hooks []Hook
}

// Write checks events and writes them in tx in the order given: all of them or
// none. It takes one statement, or a COPY where there are many.
//
// A refused event gives an error that wraps one [*EventError] for every
// problem of every event; nothing has then been sent to PostgreSQL, so tx can
// go on. Any other error comes from PostgreSQL, which has then aborted tx.
// Writing no events does nothing.
func (w Writer) Write(ctx context.Context, tx pgx.Tx, events ...Event) error {
	return w.write(ctx, events, false, func(list []prepared) error {
		var err error
		if w.Mode == Rows && len(list) >= copyFrom {
			err = w.copyRows(ctx, tx, list)
		} else {
			sql, args := w.statement(list, native{}, oneRow)
			_, err = tx.Exec(ctx, sql, args...)
		}
		if err != nil {
			return fmt.Errorf("write %d events to the outbox: %w", len(list), err)
		}
		return nil
	})
}

// Queue checks events and adds one statement that writes them to batch, so
// that they ride in the round trip of the caller's own statements. Send the
// batch in a transaction: outside one, PostgreSQL makes the batch a
// transaction of its own only while it holds no explicit BEGIN or COMMIT.
//
// When events are refused batch is left as it was, and the error is as for
// [Writer.Write]. The statement's own error comes from the batch's results.
// The batch takes over the payloads: leave them unchanged until it is sent.
func (w Writer) Queue(ctx context.Context, batch *pgx.Batch, events ...Event) error {
	return w.write(ctx, events, true, func(list []prepared) error {
		sql, args := w.statement(list, native{}, oneRow)
		batch.Queue(sql, args...)
		return nil
	})
}

// execer is a pgx transaction, connection or pool.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Change runs sql, one insert, update or delete without RETURNING, and writes
// events if it changed a row: in one statement, so in one round trip, and in
// one transaction even where db is a pool. It reports whether a row was
// changed; if none was, no event has been written and nothing has happened.
// The parameters of sql are $1, $2, … in args; pgx.NamedArgs and query options
// are refused.
//
//	changed, err := w.Change(ctx, pool, events,
//		`update users set email = $3, version = version + 1 where id = $1 and version = $2`, id, version, email)
//
// The events are refused as by [Writer.Write]; then sql has not been run. Any
// other error comes from PostgreSQL, and neither change nor events are
// committed.
func (w Writer) Change(ctx context.Context, db execer, events []Event, sql string, args ...any) (changed bool, err error) {
	if err := checkArgs(args); err != nil {
		return false, err
	}
	if len(events) == 0 {
		tag, err := db.Exec(ctx, sql, args...)
		return tag.RowsAffected() > 0, err
	}
	err = w.write(ctx, events, false, func(list []prepared) error {
		sql, args := w.change(list, native{}, sql, args)
		tag, err := db.Exec(ctx, sql, args...)
		if err != nil {
			return fmt.Errorf("change a row and write %d events to the outbox: %w", len(list), err)
		}
		changed = tag.RowsAffected() > 0
		return nil
	})
	return changed, err
}

// QueueChange adds what [Writer.Change] runs to batch. The command tag that
// the returned query's Exec callback gets has no rows affected where no row
// was changed and no event written.
func (w Writer) QueueChange(ctx context.Context, batch *pgx.Batch, events []Event, sql string, args ...any) (*pgx.QueuedQuery, error) {
	if err := checkArgs(args); err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return batch.Queue(sql, args...), nil
	}
	var queued *pgx.QueuedQuery
	err := w.write(ctx, events, true, func(list []prepared) error {
		sql, args := w.change(list, native{}, sql, args)
		queued = batch.Queue(sql, args...)
		return nil
	})
	return queued, err
}

// checkArgs refuses what pgx takes in front of the arguments: it would be
// counted as one, and number the events' parameters wrongly.
func checkArgs(args []any) error {
	if len(args) == 0 {
		return nil
	}
	switch args[0].(type) {
	case pgx.QueryRewriter, pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return fmt.Errorf("change a row and write events: argument 1 is a %T: number the parameters, $1, $2, …, and give their values", args[0])
	}
	return nil
}

// Statement gives the statement that [Writer.Write] runs, for drivers other
// than pgx: its arguments are of type string, int64 and []byte. Without events
// sql is empty. Run it in the transaction of the change that the events tell
// of, and return the driver's error: PostgreSQL has then aborted it.
func (w Writer) Statement(ctx context.Context, events ...Event) (sql string, args []any, err error) {
	err = w.write(ctx, events, true, func(list []prepared) error {
		sql, args = w.statement(list, portable{}, oneRow)
		return nil
	})
	return sql, args, err
}

// ChangeStatement is [Writer.Statement] for [Writer.Change]: the statement
// affects or returns no row where change has changed none. Its arguments are
// args and then those of the events. Without events it is change itself.
func (w Writer) ChangeStatement(ctx context.Context, events []Event, change string, args ...any) (sql string, all []any, err error) {
	sql, all = change, args
	err = w.write(ctx, events, true, func(list []prepared) error {
		sql, all = w.change(list, portable{}, change, args)
		return nil
	})
	return sql, all, err
}

func (w *Writer) change(list []prepared, encode encoder, change string, args []any) (sql string, all []any) {
	write, more := w.statement(list, encode, selectRow)
	all = append(slices.Clip(args), more...)
	return conditional(change, len(args), write), all
}

// write prepares events and gives them to send, with the hooks around it.
func (w *Writer) write(ctx context.Context, events []Event, queued bool, send func([]prepared) error) error {
	if len(events) == 0 {
		return nil
	}
	var start time.Time
	if len(w.Hooks) > 0 {
		start = time.Now()
	}
	list, size, err := w.prepare(ctx, events)
	if err == nil {
		err = send(list)
	}
	if len(w.Hooks) > 0 {
		info := WriteInfo{Mode: w.Mode, Events: len(events), Bytes: size, Duration: time.Since(start), Queued: queued, Err: err}
		for _, hook := range w.Hooks {
			if h, ok := hook.(HookWrite); ok {
				h.OnWrite(ctx, info)
			}
		}
	}
	return err
}
