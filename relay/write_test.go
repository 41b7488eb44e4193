package relay_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
)

// TestARefusedWriteLeavesTheTransactionUsable refuses events in a transaction
// that then writes others and commits.
func TestARefusedWriteLeavesTheTransactionUsable(t *testing.T) {
	f := newFixture(t)
	bad := map[string]func(*outbox.Event){
		"Type":        func(e *outbox.Event) { e.Type = "" },
		"Topic":       func(e *outbox.Event) { e.Topic = "" },
		"AggregateID": func(e *outbox.Event) { e.AggregateID = "" },
		"Payload":     func(e *outbox.Event) { e.Payload = make([]byte, outbox.DefaultMaxBytes) },
		"Headers[ce_id]": func(e *outbox.Event) {
			e.Headers = map[string]string{"ce_id": "x"}
		},
	}
	err := pgx.BeginFunc(t.Context(), f.conn, func(tx pgx.Tx) error {
		for field, spoil := range bad {
			event := f.event("42", 2)
			spoil(&event)
			err := outbox.Write(t.Context(), tx, f.event("42", 1), event)
			if refused, ok := errors.AsType[*outbox.EventError](err); !ok || refused.Index != 1 || refused.Field != field {
				t.Errorf("Write without a good %s: %v", field, err)
			}
		}
		return outbox.Write(t.Context(), tx, f.event("42", 7))
	})
	if err != nil {
		t.Fatal(err)
	}
	var rows, version int64
	if err := f.conn.QueryRow(t.Context(), `select count(*), max(aggregate_version) from outbox`).Scan(&rows, &version); err != nil {
		t.Fatal(err)
	}
	if rows != 1 || version != 7 {
		t.Errorf("%d rows, the last of version %d; want only the good one, of version 7", rows, version)
	}
}

// TestWriteInEveryProtocolMode writes one event and several in each of pgx's
// modes, as connection poolers ask for, and reads the columns back.
func TestWriteInEveryProtocolMode(t *testing.T) {
	f := newFixture(t)
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			config := f.conn.Config().Copy()
			config.DefaultQueryExecMode = mode
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			events := []outbox.Event{f.event("1", 1), f.event("2", 0), f.event("3", 3)}
			for i := range events {
				events[i].ID = outbox.NewID()
				events[i].Payload = []byte{0, 255, byte(i), '\'', '\\'}
			}
			events[2].Headers = map[string]string{"quote\"d": `a "b" \ 'c'`}
			err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				if err := outbox.Write(t.Context(), tx, events[0]); err != nil {
					return err
				}
				return outbox.Write(t.Context(), tx, events[1:]...)
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				var got string
				err := f.conn.QueryRow(t.Context(), `select concat_ws('|', topic, aggregate_type, aggregate_id, coalesce(aggregate_version, 0), type, encode(payload, 'hex'), headers->>'quote"d')
					from outbox where id = $1`, e.ID).Scan(&got)
				want := fmt.Sprintf("%s|user|%s|%d|UserCreated|%x", f.topic, e.AggregateID, e.AggregateVersion, e.Payload)
				if e.Headers != nil {
					want += "|" + e.Headers[`quote"d`]
				}
				if err != nil || got != want {
					t.Errorf("row %q, %v, want %q", got, err, want)
				}
			}
		})
	}
}
