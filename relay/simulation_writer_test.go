package relay

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/wal"
)

// A simEvent is an event that has committed, and what has become of it.
type simEvent struct {
	sequence int64 // its place in the order of commits, from 1
	id       outbox.ID
	name     string // of id
	topic    int    // of simTopics
	key      int
	nth      int // of its key
	payload  string
	poison   bool // Kafka refuses it, until it is mended
	poisoned bool // it was so once

	durable bool // in Kafka for good
	letter  bool // as a dead letter
	times   int  // it is there, for those who read committed records
}

// A simCommit is a transaction in the log, or a message outside of any.
type simCommit struct {
	commit, end lsn.Pos // where its commit record begins and ends
	messages    []wal.Message
	events      []*simEvent
	outside     bool // of any transaction
}

// Tables and prefixes of the log.
const (
	simTable      = 16400
	simOtherTable = 16500
	simForeign    = "somebody.else"
)

// A simWriter writes transactions as PostgreSQL would send them.
type simWriter struct {
	random *rand.Rand
	made   int // events, with those rolled back
	now    time.Time
}

// write gives the messages of a transaction at commit, and its events in their
// order. place is where its first change stands.
func (w *simWriter) write(place, commit, end lsn.Pos, poison int) *simCommit {
	c := &simCommit{commit: commit, end: end}
	add := func(at lsn.Pos, data []byte) { c.messages = append(c.messages, wal.Message{Data: data, Start: at}) }
	add(0, simBegin(commit, w.now))
	parts := 1 + w.random.IntN(5)
	if w.random.IntN(12) == 0 {
		parts = 0
	}
	for range parts {
		if w.random.IntN(3) > 0 { // else it has the place of the one before, as rows of a COPY
			place += lsn.Pos(8 + 8*w.random.IntN(20))
		}
		switch w.random.IntN(12) {
		case 0: // of another table
			add(place, simInsert(simOtherTable, [][]byte{[]byte("x")}))
		case 1: // a message of somebody else, with what was rolled back
			add(place, simMessage(true, place, simForeign, w.now, w.events(1)))
		case 2, 3: // a packed row
			events := w.events(1 + w.random.IntN(4))
			c.events = append(c.events, events...)
			add(place, simRow(&simEvent{id: w.id()}, simEnvelope(events), w.now, true))
		case 4, 5: // a message
			place += 8
			events := w.events(1 + w.random.IntN(4))
			c.events = append(c.events, events...)
			message := simMessage(true, place, outbox.DefaultPrefix, w.now, events)
			if w.random.IntN(2) == 0 {
				add(place, message)
				place += 8
				break
			}
			// A row directly behind it, on the other side of a savepoint, may
			// be sent in front of it.
			row := w.events(1)
			c.events = append(c.events, row...)
			add(place, simRow(row[0], []byte(row[0].payload), w.now, false))
			add(place, message)
			place += 8
		default:
			row := w.events(1)
			c.events = append(c.events, row...)
			add(place, simRow(row[0], []byte(row[0].payload), w.now, false))
		}
	}
	add(0, simCommitMessage(commit, end, w.now))
	for _, e := range c.events {
		if poison > 0 && w.random.IntN(poison) == 0 {
			e.poison, e.poisoned = true, true
		}
	}
	return c
}

// stray gives a message of somebody else that is outside of any transaction:
// it comes even when what it tells of is rolled back.
func (w *simWriter) stray(at, end lsn.Pos) *simCommit {
	return &simCommit{commit: at, end: end, outside: true, messages: []wal.Message{
		{Data: simMessage(false, end, simForeign, w.now, w.events(1)), Start: end},
	}}
}

func (w *simWriter) events(n int) []*simEvent {
	events := make([]*simEvent, n)
	for i := range events {
		id := w.id()
		events[i] = &simEvent{
			id: id, name: id.String(), topic: w.random.IntN(simDataTopics), key: w.random.IntN(5),
			payload: fmt.Sprintf(`{"n":%d}`, w.made),
		}
	}
	return events
}

func (w *simWriter) id() outbox.ID {
	w.made++
	var id outbox.ID
	binary.BigEndian.PutUint64(id[8:], uint64(w.made))
	id[6], id[8] = 0x70, 0x80
	return id
}

func simKey(k int) string { return fmt.Sprintf("k%d", k) }

// What follows are messages of pgoutput.

func simBegin(commit lsn.Pos, at time.Time) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'B'}, uint64(commit))
	b = binary.BigEndian.AppendUint64(b, simMicroseconds(at))
	return binary.BigEndian.AppendUint32(b, 700)
}

func simCommitMessage(commit, end lsn.Pos, at time.Time) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'C', 0}, uint64(commit))
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	return binary.BigEndian.AppendUint64(b, simMicroseconds(at))
}

func simMicroseconds(at time.Time) uint64 {
	return uint64(at.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds())
}

func simRelation(oid uint32, name string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'R'}, oid)
	b = append(b, "public\x00"+name+"\x00d"...)
	types := [columnCount]uint32{
		pgtype.UUIDOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.Int8OID, pgtype.TextOID,
		pgtype.ByteaOID, pgtype.JSONBOID, pgtype.TimestamptzOID,
	}
	b = binary.BigEndian.AppendUint16(b, columnCount)
	for i, c := range outboxColumns() {
		b = append(append(append(b, 0), c.name...), 0)
		b = binary.BigEndian.AppendUint32(b, types[i])
		b = binary.BigEndian.AppendUint32(b, 0xffffffff)
	}
	return b
}

// simInsert gives a row of columns in binary; a nil one is NULL.
func simInsert(oid uint32, columns [][]byte) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{'I'}, oid), 'N')
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		if c == nil {
			b = append(b, 'n')
			continue
		}
		b = binary.BigEndian.AppendUint32(append(b, 'b'), uint32(len(c)))
		b = append(b, c...)
	}
	return b
}

func simRow(e *simEvent, payload []byte, at time.Time, packed bool) []byte {
	topic, aggregate, key, kind := simTopics()[e.topic], "thing", simKey(e.key), "thing.changed"
	if packed {
		topic, aggregate, key, kind = "", "", "", envelope.RowType
	}
	return simInsert(simTable, [][]byte{
		e.id[:], []byte(topic), []byte(aggregate), []byte(key), nil, []byte(kind), payload, nil,
		binary.BigEndian.AppendUint64(nil, simMicroseconds(at)),
	})
}

func simEnvelope(events []*simEvent) []byte {
	b := envelope.AppendStart(nil)
	var previous *envelope.Event
	for _, e := range events {
		next := &envelope.Event{
			ID: e.id, Topic: simTopics()[e.topic], AggregateType: "thing", AggregateID: simKey(e.key), Type: "thing.changed",
			Payload: []byte(e.payload),
		}
		b = envelope.AppendEvent(b, previous, next)
		previous = next
	}
	return b
}

func simMessage(transactional bool, end lsn.Pos, prefix string, at time.Time, events []*simEvent) []byte {
	b := []byte{'M', 0}
	if transactional {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	b = append(append(b, prefix...), 0)
	content := append(binary.BigEndian.AppendUint64(nil, simMicroseconds(at)), simEnvelope(events)...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	return append(b, content...)
}
