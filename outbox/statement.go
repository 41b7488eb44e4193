package outbox

import (
	"encoding/json"
	"fmt"
	"time"
)

const columns = `(id, topic, aggregate_type, aggregate_id, aggregate_version, type, payload, headers)`

// Headers travel as text and become jsonb in the server, and a version of 0
// becomes NULL there: one parameter type each, in every protocol mode of pgx.
const (
	insertOne = ` values ($1, $2, $3, $4, nullif($5::bigint, 0), $6, $7, nullif($8::text, '')::jsonb)`

	// One statement of eight arrays costs a fraction of as many statements,
	// and unnest keeps the arrays' order.
	insertMany = ` select id, topic, aggregate_type, aggregate_id, nullif(aggregate_version, 0), type, payload, nullif(headers, '')::jsonb` +
		` from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[], $8::text[]) as e ` + columns
)

// statement gives the insert for events, or no SQL where there are none.
func (w Writer) statement(events []Event) (sql string, args []any, err error) {
	maxBytes := w.MaxBytes
	if maxBytes == 0 {
		maxBytes = DefaultMaxBytes
	}
	if err := check(events, maxBytes); err != nil {
		return "", nil, fmt.Errorf("write to the outbox: %w", err)
	}
	if len(events) == 0 {
		return "", nil, nil
	}
	table := `outbox`
	if len(w.Table) > 0 {
		table = w.Table.Sanitize()
	}
	into := "insert into " + table + " " + columns
	if len(events) == 1 {
		e := &events[0]
		return into + insertOne, []any{
			idOr(e.ID, ID{}), e.Topic, e.AggregateType, e.AggregateID, e.AggregateVersion, e.Type, payload(e), headersText(e.Headers),
		}, nil
	}
	return into + insertMany, arrays(events), nil
}

func arrays(events []Event) []any {
	n := len(events)
	ids := make([]string, n) // pgx knows no array of IDs where it must go by the Go type
	topics, aggregateTypes, aggregateIDs := make([]string, n), make([]string, n), make([]string, n)
	versions := make([]int64, n)
	types, payloads, headers := make([]string, n), make([][]byte, n), make([]string, n)
	var last ID
	for i := range events {
		e := &events[i]
		id := idOr(e.ID, last)
		if e.ID.IsZero() {
			last = id
		}
		ids[i] = id.String()
		topics[i], aggregateTypes[i], aggregateIDs[i] = e.Topic, e.AggregateType, e.AggregateID
		versions[i] = e.AggregateVersion
		types[i], payloads[i], headers[i] = e.Type, payload(e), headersText(e.Headers)
	}
	return []any{ids, topics, aggregateTypes, aggregateIDs, versions, types, payloads, headers}
}

// idOr gives id, or where it is unset a new one greater than last.
func idOr(id, last ID) ID {
	if id.IsZero() {
		return newID(time.Now(), last)
	}
	return id
}

// payload is never nil, which would be NULL in the table.
func payload(e *Event) []byte {
	if e.Payload == nil {
		return []byte{}
	}
	return e.Payload
}

func headersText(h map[string]string) string {
	if len(h) == 0 {
		return ""
	}
	b, _ := json.Marshal(h) // strings of valid UTF-8 only: it cannot fail
	return string(b)
}
