package aggregate

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrVersionConflict says that an aggregate was changed by somebody else since
// it was loaded: load it again and repeat the command. The error that wraps it
// is a [*ConflictError].
var ErrVersionConflict = errors.New("version conflict")

// A ConflictError says which aggregate could not be saved.
type ConflictError struct {
	AggregateType string
	AggregateID   string
	Expected      int64 // the version it should have had; 0: none, it was to be new
}

func (e *ConflictError) Error() string {
	if e.Expected == 0 {
		return fmt.Sprintf("%v: %s %s was to be made, but it is there already or its statement made no row",
			ErrVersionConflict, e.AggregateType, e.AggregateID)
	}
	return fmt.Sprintf("%v: %s %s is not at version %d any more: load it again and repeat the command",
		ErrVersionConflict, e.AggregateType, e.AggregateID, e.Expected)
}

// Unwrap gives [ErrVersionConflict].
func (e *ConflictError) Unwrap() error { return ErrVersionConflict }

// execer is a pgx pool, connection or transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Save runs sql, which changes the aggregate's row, and writes the unsaved
// events if it did: in one statement, so in one round trip, and in one
// transaction even where db is a pool. Sql is one insert or update without
// RETURNING (see [outbox.Writer.Change]):
//
//   - For a new aggregate it inserts the row. With "on conflict (id) do
//     nothing" a row that is there already is a version conflict; without it,
//     PostgreSQL's unique violation.
//   - For one that exists, its condition is the id and the version, and one of
//     args must be [Root.Expected]; Save refuses to run it otherwise.
//
// Where it changes no row the error is a [*ConflictError], which wraps
// [ErrVersionConflict]; no event has been written then, and a transaction goes
// on. Any other error is as for [outbox.Writer.Change] and wraps PostgreSQL's,
// a *pgconn.PgError with the constraint violated for example. Where an error
// leaves open whether PostgreSQL has committed, Save may be called again: a
// conflict then says that it had.
//
// After success nothing is unsaved any more; after an error the root is as it
// was. In a transaction that is rolled back later, drop the root: it can't
// know. Without unsaved events Save does nothing.
//
// Requests, users and traces go into the events by [outbox.WithMetadata].
func (r *Root[S]) Save(ctx context.Context, db execer, sql string, args ...any) error {
	if len(r.pending) == 0 {
		return nil
	}
	if err := r.checkArgs(args); err != nil {
		return err
	}
	changed, err := r.def.writer.Change(ctx, db, r.pending, sql, args...)
	if err != nil {
		return fmt.Errorf("save %s %s at version %d: %w", r.def.name, r.id, r.version, err)
	}
	if !changed {
		return r.conflict(r.Expected())
	}
	r.pending = nil
	return nil
}

// Queue adds what Save runs to batch. The conflict is an error of the batch's
// results, and the root is saved when they have been read; do not queue it
// again before.
//
// Send the batch in an explicit transaction and roll that back on an error. A
// conflict is none to PostgreSQL: without such a transaction, the other
// statements of the batch come into effect.
func (r *Root[S]) Queue(ctx context.Context, batch *pgx.Batch, sql string, args ...any) error {
	n, expected := len(r.pending), r.Expected()
	if n == 0 {
		return nil
	}
	if err := r.checkArgs(args); err != nil {
		return err
	}
	queued, err := r.def.writer.QueueChange(ctx, batch, r.pending, sql, args...)
	if err != nil {
		return fmt.Errorf("save %s %s at version %d: %w", r.def.name, r.id, r.version, err)
	}
	queued.Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() == 0 {
			return r.conflict(expected)
		}
		r.pending = r.pending[n:] // those recorded since are not saved
		return nil
	})
	return nil
}

func (r *Root[S]) conflict(expected Expected) error {
	return &ConflictError{AggregateType: r.def.name, AggregateID: r.id, Expected: int64(expected)}
}

// checkArgs refuses a statement that can't compare the version, since nothing
// else would tell of the updates it loses.
func (r *Root[S]) checkArgs(args []any) error {
	if r.Expected() == 0 {
		return nil
	}
	for _, arg := range args {
		if e, ok := arg.(Expected); ok && e == r.Expected() {
			return nil
		}
	}
	return fmt.Errorf("save %s %s at version %d: the statement is not given the version it replaces: pass root.Expected() and compare it, "+
		"as in: update … where id = $1 and version = $2", r.def.name, r.id, r.version)
}
