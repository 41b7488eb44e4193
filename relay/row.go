package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

// A row is one event, as it stands in a row of the outbox table or in an
// envelope: all text and slices point into the message from the stream.
type row struct {
	envelope.Event        // its Headers are those of an envelope's event
	json           []byte // the headers of a row of its own, as JSON text; nil: none
	createdAt      time.Time
}

// packed says that the payload is an envelope.
func (r *row) packed() bool { return r.Topic == "" && r.Type == envelope.RowType }

// The columns of the outbox table, in the order of a layout.
const (
	colID = iota
	colTopic
	colAggregateType
	colAggregateID
	colAggregateVersion
	colType
	colPayload
	colHeaders
	colCreatedAt
	columnCount
)

// column says what a column must be. Types are compared by OID, since values
// come in binary; a payload may be stored as anything whose binary form is its
// text.
type column struct {
	name     string
	types    []uint32
	nullable bool
}

func outboxColumns() [columnCount]column {
	text := []uint32{pgtype.TextOID, pgtype.VarcharOID}
	return [columnCount]column{
		colID:               {name: "id", types: []uint32{pgtype.UUIDOID}},
		colTopic:            {name: "topic", types: text},
		colAggregateType:    {name: "aggregate_type", types: text},
		colAggregateID:      {name: "aggregate_id", types: text},
		colAggregateVersion: {name: "aggregate_version", types: []uint32{pgtype.Int8OID}, nullable: true},
		colType:             {name: "type", types: text},
		colPayload:          {name: "payload", types: []uint32{pgtype.ByteaOID, pgtype.TextOID, pgtype.JSONOID, pgtype.JSONBOID}},
		colHeaders:          {name: "headers", types: []uint32{pgtype.JSONBOID, pgtype.JSONOID}, nullable: true},
		colCreatedAt:        {name: "created_at", types: []uint32{pgtype.TimestamptzOID}},
	}
}

// A layout finds the outbox columns in a row by the names that the Relation
// message gave: a column added later is ignored.
type layout struct {
	index [columnCount]int
	jsonb [columnCount]bool // sent with a version byte in front
}

func newLayout(r pgoutput.Relation) (*layout, error) {
	var l layout
	var errs []error
	for i, want := range outboxColumns() {
		l.index[i] = -1
		for j, c := range r.Columns {
			if c.Name != want.name {
				continue
			}
			l.index[i] = j
			l.jsonb[i] = c.Type == pgtype.JSONBOID
			if !slices.Contains(want.types, c.Type) {
				errs = append(errs, fmt.Errorf("column %s has type OID %d, want one of %v", c.Name, c.Type, want.types))
			}
		}
		if l.index[i] < 0 {
			errs = append(errs, fmt.Errorf("column %s is missing", want.name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &TableError{Table: r.Namespace + "." + r.Name, Err: err}
	}
	return &l, nil
}

// read takes the outbox columns out of values.
func (l *layout) read(values []pgoutput.Column, r *row) error {
	var fields [columnCount][]byte
	for i, j := range l.index {
		if j >= len(values) {
			return fmt.Errorf("row has %d columns, its table had more", len(values))
		}
		v := values[j]
		switch {
		case v.Format == pgoutput.Binary && l.jsonb[i]:
			if len(v.Data) == 0 || v.Data[0] != 1 {
				return fmt.Errorf("column %s: unknown version of jsonb", outboxColumns()[i].name)
			}
			fields[i] = v.Data[1:]
		case v.Format == pgoutput.Binary:
			fields[i] = v.Data
		case v.Format == pgoutput.Null && outboxColumns()[i].nullable:
		case v.Format == pgoutput.Null:
			return fmt.Errorf("column %s is NULL", outboxColumns()[i].name)
		default:
			return fmt.Errorf("column %s came in format %q, want binary", outboxColumns()[i].name, v.Format)
		}
	}
	if len(fields[colID]) != 16 || len(fields[colCreatedAt]) != 8 {
		return errors.New("columns id and created_at have the wrong size")
	}
	r.Event = envelope.Event{
		ID:            [16]byte(fields[colID]),
		Topic:         view(fields[colTopic]),
		AggregateType: view(fields[colAggregateType]),
		AggregateID:   view(fields[colAggregateID]),
		Type:          view(fields[colType]),
		Headers:       r.Headers[:0],
		Payload:       fields[colPayload],
	}
	r.json = fields[colHeaders]
	r.createdAt = pgoutput.Time(int64(binary.BigEndian.Uint64(fields[colCreatedAt])))
	switch version := fields[colAggregateVersion]; len(version) {
	case 0:
	case 8:
		r.AggregateVersion = int64(binary.BigEndian.Uint64(version))
	default:
		return errors.New("column aggregate_version has the wrong size")
	}
	return nil
}
