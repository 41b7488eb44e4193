package outboxtest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/envelope"
)

// read gives all events in table, those in envelopes too.
func read(ctx context.Context, db querier, table pgx.Identifier) ([]outbox.Event, error) {
	if len(table) == 0 {
		table = pgx.Identifier{"outbox"}
	}
	rows, err := db.Query(ctx, `select id, topic, aggregate_type, aggregate_id, coalesce(aggregate_version, 0), type, payload, headers
		from `+table.Sanitize()+` order by id`)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	var events []outbox.Event
	var e outbox.Event
	targets := []any{&e.ID, &e.Topic, &e.AggregateType, &e.AggregateID, &e.AggregateVersion, &e.Type, &e.Payload, &e.Headers}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		if e.Topic == "" && e.Type == envelope.RowType {
			return unpack(&events, e.Payload)
		}
		events = append(events, e)
		e.Payload, e.Headers = nil, nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return events, nil
}

func unpack(events *[]outbox.Event, b []byte) error {
	reader, err := envelope.NewReader(b)
	if err != nil {
		return err
	}
	for {
		var e envelope.Event
		ok, err := reader.Next(&e)
		if err != nil || !ok {
			return err
		}
		event := outbox.Event{
			ID: e.ID, Topic: e.Topic, AggregateType: e.AggregateType, AggregateID: e.AggregateID,
			AggregateVersion: e.AggregateVersion, Type: e.Type, Payload: e.Payload,
		}
		if len(e.Headers) > 0 {
			event.Headers = make(map[string]string, len(e.Headers))
			for _, h := range e.Headers {
				event.Headers[h.Name] = h.Value
			}
		}
		*events = append(*events, event)
	}
}
