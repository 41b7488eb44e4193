// Package outboxtest looks, in a test of yours, at the events that your code
// has written.
//
//	created := outboxtest.RequireWritten(t, tx, userCreated, outboxtest.AggregateID("42"))
//	if created.Data.Email != "ada@example.com" { … }
//
// It reads the outbox table, so it sees what [outbox.Rows] and [outbox.Packed]
// write, and what was in the table before: run a test in a transaction that is
// rolled back, or in a database of its own. Events of mode [outbox.WAL] stand
// in no table; let the code under test write rows.
package outboxtest

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
)

// TB is the part of testing.TB that is needed here.
type TB interface {
	Helper()
	Context() context.Context
	Fatalf(format string, args ...any)
}

// querier is a pgx transaction, connection or pool.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// An Event is one that was written, with its payload as the type's value.
type Event[T any] struct {
	outbox.Event
	Data T
}

// RequireWritten ends the test unless exactly one event of typ that fits all
// of where was written, and returns it. The message of a failure lists what
// was there.
func RequireWritten[T any](t TB, db querier, typ outbox.Typed[T], where ...Where) Event[T] {
	t.Helper()
	found := require(t, db, typ, where, 1)
	if len(found) != 1 {
		return Event[T]{} // only where Fatalf returns
	}
	return found[0]
}

// RequireManyWritten ends the test unless exactly n events of typ that fit all
// of where were written, and returns them in the order of their ids, which is
// that of their writing where the ids were made by this package's writer.
func RequireManyWritten[T any](t TB, db querier, n int, typ outbox.Typed[T], where ...Where) []Event[T] {
	t.Helper()
	return require(t, db, typ, where, n)
}

// RequireNotWritten ends the test if an event of typ that fits all of where
// was written.
func RequireNotWritten[T any](t TB, db querier, typ outbox.Typed[T], where ...Where) {
	t.Helper()
	require(t, db, typ, where, 0)
}

func require[T any](t TB, db querier, typ outbox.Typed[T], where []Where, n int) []Event[T] {
	t.Helper()
	var s search
	for _, w := range where {
		w(&s)
	}
	all, err := read(t.Context(), db, s.table)
	if err != nil {
		t.Fatalf("outboxtest: %v", err)
		return nil
	}
	var found []Event[T]
	for i := range all {
		e := &all[i]
		if e.Type != typ.Name || !s.fits(e) {
			continue
		}
		version, err := outbox.ParseSchemaVersion(e.Headers[outbox.HeaderSchemaVersion])
		if err != nil {
			t.Fatalf("outboxtest: event %v: %v", e.ID, err)
			return nil
		}
		data, err := typ.Decode(version, e.Payload)
		if err != nil {
			t.Fatalf("outboxtest: event %v: %v\npayload: %s", e.ID, err, shorten(e.Payload))
			return nil
		}
		found = append(found, Event[T]{Event: *e, Data: data})
	}
	if len(found) != n {
		t.Fatalf("outboxtest: %d events %s were written%s, want %d; %s", len(found), typ.Name, s.text(), n, list(all))
		return nil
	}
	return found
}

// list describes events, one a line.
func list(events []outbox.Event) string {
	if len(events) == 0 {
		return "the outbox is empty"
	}
	var b strings.Builder
	b.WriteString("the outbox holds:")
	for i := range events {
		e := &events[i]
		fmt.Fprintf(&b, "\n  %s of %s/%s", e.Type, e.AggregateType, e.AggregateID)
		if e.AggregateVersion > 0 {
			fmt.Fprintf(&b, " version %d", e.AggregateVersion)
		}
		fmt.Fprintf(&b, " to %s: %s", e.Topic, shorten(e.Payload))
		if len(e.Headers) > 0 {
			fmt.Fprintf(&b, " %v", e.Headers)
		}
	}
	return b.String()
}

func shorten(payload []byte) string {
	const most = 200
	if len(payload) > most {
		return fmt.Sprintf("%q… (%d bytes)", payload[:most], len(payload))
	}
	return fmt.Sprintf("%q", payload)
}
