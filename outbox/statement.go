package outbox

import (
	"strconv"
	"strings"

	"github.com/seed-048de892/walpost/outbox/envelope"
)

// Headers travel as text and become jsonb in the server, and a version of 0
// becomes NULL there: one parameter type each, in every protocol mode of pgx
// and every driver.
const (
	columns = ` (id, topic, aggregate_type, aggregate_id, aggregate_version, type, payload, headers)`

	rowValues = `$1::uuid, $2::text, $3::text, $4::text, nullif($5::bigint, 0), $6::text, $7::bytea, nullif($8::text, '')::jsonb`

	oneRow = columns + ` values (` + rowValues + `)`
	// selectRow is oneRow in the form that a condition can follow.
	selectRow = columns + ` select ` + rowValues

	// One statement of eight arrays costs a fraction of as many statements,
	// and unnest keeps the arrays' order.
	manyRows = columns + ` select id, topic, aggregate_type, aggregate_id, nullif(aggregate_version, 0), type, payload, nullif(headers, '')::jsonb` +
		` from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bytea[], $8::text[]) as e` + columns

	packedColumns = ` (id, topic, aggregate_type, aggregate_id, type, payload)`

	onePacked   = packedColumns + ` select $1::uuid, '', '', '', '` + envelope.RowType + `', $2::bytea`
	manyPacked  = packedColumns + ` select id, '', '', '', '` + envelope.RowType + `', payload from unnest($1::uuid[], $2::bytea[]) as e (id, payload)`
	oneMessage  = `select pg_logical_emit_message(true, $1::text, timestamptz_send(now()) || $2::bytea)`
	manyMessage = `select pg_logical_emit_message(true, $1::text, timestamptz_send(now()) || e) from unnest($2::bytea[]) as e`
)

// insert gives the statement that inserts into the Writer's table.
func (w *Writer) insert(rest string) string {
	if len(w.Table) == 0 {
		switch rest { // constants, so that the common case builds no string
		case oneRow:
			return `insert into "outbox"` + oneRow
		case manyRows:
			return `insert into "outbox"` + manyRows
		}
	}
	return `insert into ` + w.identifier().Sanitize() + rest
}

// statement gives the SQL that writes list, with its arguments as encode makes
// them. row is the form for a single row: oneRow or selectRow.
func (w *Writer) statement(list []prepared, encode encoder, row string) (sql string, args []any) {
	single := len(list) == 1
	switch {
	case w.Mode == WAL && single:
		return oneMessage, encode.message(w.prefix(), seal(&list[0]))
	case w.Mode == WAL:
		envelopes, _ := pack(list, messageBytes)
		if len(envelopes) == 1 {
			return oneMessage, encode.message(w.prefix(), envelopes[0])
		}
		return manyMessage, []any{w.prefix(), encode.bytes(envelopes)}
	case w.Mode == Packed && !single: // a single event is as cheap in a row, which can be read
		envelopes, ids := pack(list, rowBytes)
		if len(envelopes) == 1 {
			return w.insert(onePacked), []any{encode.id(&ids[0]), envelopes[0]}
		}
		return w.insert(manyPacked), []any{encode.ids(ids), encode.bytes(envelopes)}
	case single:
		return w.insert(row), encode.row(&list[0])
	default:
		return w.insert(manyRows), encode.rows(list)
	}
}

// conditional makes one statement of change, which has n parameters, and of
// write, which comes into effect only where change has changed a row.
func conditional(change string, n int, write string) string {
	var b strings.Builder
	b.Grow(len(change) + len(write) + 80)
	b.WriteString("with changed as (\n")
	b.WriteString(strings.TrimRight(change, " \t\r\n;"))
	b.WriteString("\nreturning 1)\n") // on its own line: change may end in a comment
	renumber(&b, write, n)
	b.WriteString(" where exists (select from changed)")
	return b.String()
}

// renumber writes sql with n added to the number of each parameter.
func renumber(b *strings.Builder, sql string, n int) {
	for {
		before, after, found := strings.Cut(sql, "$")
		b.WriteString(before)
		if !found {
			return
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		number, _ := strconv.Atoi(after[:digits]) // of our own constants
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(number + n))
		sql = after[digits:]
	}
}

const (
	// rowBytes is the size of an envelope in a row. A row that fits a page is
	// stored as it is; a larger one PostgreSQL compresses and cuts up, which
	// costs ten times as much, and again when it is decoded. What is left of
	// the page's 8160 bytes holds the row's header and its other columns.
	rowBytes = 8000

	// messageBytes is the size of an envelope in a message: large enough that
	// the message's own cost vanishes, small enough for every buffer on its
	// way.
	messageBytes = 256 << 10
)

// seal puts one event into an envelope.
func seal(p *prepared) []byte {
	b := envelope.AppendStart(make([]byte, 0, p.size(p.headers)+len(p.Topic)+64))
	e := p.enclosed()
	return envelope.AppendEvent(b, nil, &e)
}

func (p *prepared) enclosed() envelope.Event {
	return envelope.Event{
		ID: p.id, Topic: p.Topic, AggregateType: p.AggregateType, AggregateID: p.AggregateID,
		Type: p.Type, AggregateVersion: p.AggregateVersion, Headers: p.headers, Payload: p.Payload,
	}
}

// pack puts list into envelopes of at most limit bytes; one event alone may be
// larger. Each envelope gets the id of its first event.
func pack(list []prepared, limit int) (envelopes [][]byte, ids []ID) {
	size := 64 // what is left to pack, roughly
	for i := range list {
		size += list[i].size(list[i].headers) + len(list[i].Topic) + 64
	}
	var b []byte
	var previous *envelope.Event // in this envelope
	current, spare := new(envelope.Event), new(envelope.Event)
	for i := range list {
		p := &list[i]
		*current = p.enclosed()
		if previous != nil {
			end := len(b)
			if b = envelope.AppendEvent(b, previous, current); len(b) > limit {
				size -= end
				envelopes, previous = append(envelopes, b[:end:end]), nil
			}
		}
		if previous == nil {
			b = envelope.AppendStart(make([]byte, 0, max(0, min(size, limit+limit/4))))
			b = envelope.AppendEvent(b, nil, current)
			ids = append(ids, p.id)
		}
		previous = current
		current, spare = spare, current
	}
	return append(envelopes, b), ids
}
