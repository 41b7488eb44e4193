package outbox

import (
	"database/sql/driver"

	"github.com/jackc/pgx/v5/pgtype"
)

// An encoder makes statement arguments for one kind of driver.
type encoder interface {
	row(p *prepared) []any
	rows(list []prepared) []any
	id(id *ID) any
	ids(ids []ID) any
	message(prefix string, envelope []byte) []any
	bytes(b [][]byte) any
}

// native makes arguments for pgx. Those of a single row are pointers into one
// allocation, where values of their own would each be moved to the heap.
type native struct{}

type text string

func (t *text) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: string(*t), Valid: true}, nil
}

// Value serves pgx's modes in which only the Go type is known.
func (t *text) Value() (driver.Value, error) { return string(*t), nil }

type bigint int64

func (n *bigint) Int64Value() (pgtype.Int8, error) {
	return pgtype.Int8{Int64: int64(*n), Valid: true}, nil
}

func (n *bigint) Value() (driver.Value, error) { return int64(*n), nil }

type bytea []byte

func (b *bytea) BytesValue() ([]byte, error) { return *b, nil }

func (b *bytea) Value() (driver.Value, error) { return []byte(*b), nil }

// rowParams are the parameters of oneRow.
type rowParams struct {
	args                                    [8]any
	id                                      ID
	topic, aggregateType, aggregateID, what text
	version                                 bigint
	payload                                 bytea
	headers                                 text
}

func (native) row(p *prepared) []any {
	r := &rowParams{
		id: p.id, topic: text(p.Topic), aggregateType: text(p.AggregateType), aggregateID: text(p.AggregateID),
		version: bigint(p.AggregateVersion), what: text(p.Type), payload: p.payload(), headers: text(p.headersText()),
	}
	r.args = [...]any{&r.id, &r.topic, &r.aggregateType, &r.aggregateID, &r.version, &r.what, &r.payload, &r.headers}
	return r.args[:]
}

func (native) rows(list []prepared) []any {
	n := len(list)
	ids := make([]pgtype.UUID, n) // pgx knows no array of IDs where it must go by the Go type
	topics, aggregateTypes, aggregateIDs := make([]string, n), make([]string, n), make([]string, n)
	versions := make([]int64, n)
	types, payloads, headers := make([]string, n), make([][]byte, n), make([]string, n)
	for i := range list {
		p := &list[i]
		ids[i] = pgtype.UUID{Bytes: p.id, Valid: true}
		topics[i], aggregateTypes[i], aggregateIDs[i] = p.Topic, p.AggregateType, p.AggregateID
		versions[i] = p.AggregateVersion
		types[i], payloads[i], headers[i] = p.Type, p.payload(), p.headersText()
	}
	return []any{ids, topics, aggregateTypes, aggregateIDs, versions, types, payloads, headers}
}

func (native) id(id *ID) any { return id }

func (native) ids(ids []ID) any {
	list := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		list[i] = pgtype.UUID{Bytes: id, Valid: true}
	}
	return list
}

func (native) bytes(b [][]byte) any { return b }

// messageParams are the parameters of oneMessage.
type messageParams struct {
	args   [2]any
	prefix text
	data   bytea
}

func (native) message(prefix string, envelope []byte) []any {
	m := &messageParams{prefix: text(prefix), data: envelope}
	m.args = [...]any{&m.prefix, &m.data}
	return m.args[:]
}
