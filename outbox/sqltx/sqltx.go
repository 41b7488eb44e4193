// Package sqltx writes events through database/sql, with whichever driver for
// PostgreSQL: what [outbox.Write] is for pgx. A single event costs as much;
// for several pgx is cheaper, since it sends arrays in binary.
package sqltx

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/seed-048de892/walpost/outbox"
)

// Write checks events and writes them in tx in the order given. It is
// [Writer.Write] of the zero Writer.
func Write(ctx context.Context, tx *sql.Tx, events ...outbox.Event) error {
	return Writer{}.Write(ctx, tx, events...)
}

// A Writer writes events with the settings of an [outbox.Writer]. The zero
// Writer writes rows into the table "outbox".
type Writer struct {
	Outbox outbox.Writer
}

// Write checks events and writes them in tx in the order given, in one
// statement: all of them or none. A refused event gives an error as
// [outbox.Writer.Write] does, and tx can go on; any other error comes from
// PostgreSQL, which has then aborted tx.
func (w Writer) Write(ctx context.Context, tx *sql.Tx, events ...outbox.Event) error {
	statement, args, err := w.Outbox.Statement(ctx, events...)
	if err != nil || statement == "" {
		return err
	}
	if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
		return fmt.Errorf("write %d events to the outbox: %w", len(events), err)
	}
	return nil
}

// execer is a *sql.DB, *sql.Conn or *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Change runs change, one insert, update or delete without RETURNING whose
// parameters are $1, $2, …, and writes events if it changed a row: in one
// statement, which is a transaction of its own where db is a *sql.DB. It
// reports whether a row was changed. Errors are as for [outbox.Writer.Change].
func (w Writer) Change(ctx context.Context, db execer, events []outbox.Event, change string, args ...any) (changed bool, err error) {
	statement, args, err := w.Outbox.ChangeStatement(ctx, events, change, args...)
	if err != nil {
		return false, err
	}
	result, err := db.ExecContext(ctx, statement, args...)
	if err != nil {
		return false, fmt.Errorf("change a row and write %d events to the outbox: %w", len(events), err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("change a row and write %d events to the outbox: rows affected: %w", len(events), err)
	}
	return n > 0, nil
}
