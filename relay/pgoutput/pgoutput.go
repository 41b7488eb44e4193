// Package pgoutput decodes the messages of PostgreSQL's logical replication
// plugin pgoutput, protocol version 1, that a stream of inserts and of logical
// decoding messages is made of.
//
// Nothing is allocated but for a Relation, which comes once a session and
// table. Decoded slices point into the message: copy what must outlive it.
// The format is chapter "Logical Replication Message Formats" of PostgreSQL's
// documentation.
package pgoutput

import (
	"errors"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// A Kind is the first byte of a message.
type Kind byte

// The kinds of messages in protocol version 1.
const (
	KindBegin    Kind = 'B'
	KindCommit   Kind = 'C'
	KindRelation Kind = 'R'
	KindInsert   Kind = 'I'
	KindUpdate   Kind = 'U'
	KindDelete   Kind = 'D'
	KindTruncate Kind = 'T'
	KindType     Kind = 'Y'
	KindOrigin   Kind = 'O'
	KindMessage  Kind = 'M'
)

// ErrTruncated says that a message ended before its fields did.
var ErrTruncated = errors.New("message is cut short")

// ErrTrailing says that a message goes on after its last field.
var ErrTrailing = errors.New("message has bytes after its last field")

// ErrUnknown says that a field has a value the protocol does not define.
var ErrUnknown = errors.New("unknown value")

// KindOf gives the kind of a message; 0 for an empty one.
func KindOf(b []byte) Kind {
	if len(b) == 0 {
		return 0
	}
	return Kind(b[0])
}

// Begin opens a transaction. Its messages follow without those of another in
// between.
type Begin struct {
	FinalLSN   lsn.Pos // where the commit record begins: the transaction's identity, strictly increasing in a stream
	CommitTime time.Time
	XID        uint32
}

// Commit closes a transaction.
type Commit struct {
	CommitLSN  lsn.Pos // the Begin's FinalLSN
	EndLSN     lsn.Pos // behind the commit record: what to confirm
	CommitTime time.Time
}

// Relation describes a table before the first row of it, and again after it
// has changed.
type Relation struct {
	OID       uint32
	Namespace string
	Name      string
	Columns   []RelationColumn
}

// A RelationColumn is one column of a table as it is sent.
type RelationColumn struct {
	Name string
	Type uint32 // the type's OID
}

// Format says how a column's value is sent.
type Format byte

// The formats of a column's value.
const (
	Null      Format = 'n'
	Unchanged Format = 'u' // a TOASTed value that an update left alone; never in an insert
	Text      Format = 't'
	Binary    Format = 'b'
)

// A Column is one value of a row.
type Column struct {
	Format Format
	Data   []byte // points into the message
}

// Message is what pg_logical_emit_message wrote. Any extension may write one.
type Message struct {
	// Transactional says that the message belongs to the transaction that is
	// open in the stream. Others come at once, even of a transaction that is
	// rolled back later.
	Transactional bool

	LSN     lsn.Pos // behind the message's record: what pg_logical_emit_message returned
	Prefix  []byte  // says whose the message is; points into the message
	Content []byte  // points into the message
}

// ParseBegin decodes a message of [KindBegin].
func ParseBegin(b []byte) (Begin, error) {
	r := reader{rest: b, kind: KindBegin}
	m := Begin{FinalLSN: lsn.Pos(r.uint64()), CommitTime: r.time(), XID: r.uint32()}
	return m, r.end("begin")
}

// ParseCommit decodes a message of [KindCommit].
func ParseCommit(b []byte) (Commit, error) {
	r := reader{rest: b, kind: KindCommit}
	r.uint8() // flags, unused
	m := Commit{CommitLSN: lsn.Pos(r.uint64()), EndLSN: lsn.Pos(r.uint64()), CommitTime: r.time()}
	return m, r.end("commit")
}

// ParseRelation decodes a message of [KindRelation].
func ParseRelation(b []byte) (Relation, error) {
	r := reader{rest: b, kind: KindRelation}
	m := Relation{OID: r.uint32(), Namespace: r.string(), Name: r.string()}
	r.uint8() // replica identity: inserts have none
	n := int(r.uint16())
	for range n {
		r.uint8() // flags: part of the key
		c := RelationColumn{Name: r.string(), Type: r.uint32()}
		r.uint32() // type modifier
		if r.err != nil {
			break
		}
		m.Columns = append(m.Columns, c)
	}
	return m, r.end("relation")
}

// ParseInsert decodes a message of [KindInsert]: the table's OID, and the
// row's values appended to columns, in the order of the [Relation].
func ParseInsert(b []byte, columns []Column) (oid uint32, _ []Column, _ error) {
	r := reader{rest: b, kind: KindInsert}
	oid = r.uint32()
	if tuple := r.uint8(); tuple != 'N' && r.err == nil {
		r.err = fmt.Errorf("tuple kind %q, want 'N': %w", tuple, ErrUnknown)
	}
	n := int(r.uint16())
	for range n {
		c := Column{Format: Format(r.uint8())}
		switch c.Format {
		case Null, Unchanged:
		case Text, Binary:
			c.Data = r.bytes(r.uint32())
		default:
			if r.err == nil {
				r.err = fmt.Errorf("column format %q: %w", c.Format, ErrUnknown)
			}
		}
		if r.err != nil {
			break
		}
		columns = append(columns, c)
	}
	return oid, columns, r.end("insert")
}

// ParseMessage decodes a message of [KindMessage].
func ParseMessage(b []byte) (Message, error) {
	r := reader{rest: b, kind: KindMessage}
	flags := r.uint8()
	if flags > 1 {
		r.err = fmt.Errorf("flags %#x: %w", flags, ErrUnknown)
	}
	m := Message{Transactional: flags == 1, LSN: lsn.Pos(r.uint64()), Prefix: r.text()}
	m.Content = r.bytes(r.uint32())
	return m, r.end("logical decoding message")
}
