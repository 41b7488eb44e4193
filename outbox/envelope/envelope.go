// Package envelope puts several events into one row of the outbox table or one
// message of the write-ahead log, and takes them out again.
//
// What an event shares with the one before it is not repeated. Encoding into a
// buffer that is reused allocates nothing, nor does decoding: an [Event] read
// points into the bytes it was read from. The format is described byte by byte
// in docs/formats/envelope.md; it has no version but [Version].
package envelope

import (
	"encoding/binary"
	"slices"
)

// RowType is the type of an outbox row whose payload is an envelope. Such a
// row has an empty topic, which no event's row has.
const RowType = "walpost.envelope"

// TimeBytes is how many bytes stand before the envelope in a write-ahead log
// message: the transaction's time as timestamptz_send gives it, big-endian
// microseconds since 2000-01-01 00:00 UTC. A row has its created_at instead.
const TimeBytes = 8

// Magic is the first byte of an envelope. It occurs in no UTF-8 text, so that
// text and JSON are never taken for one.
const Magic = 0xfe

// Version is the second byte of an envelope.
const Version = 1

// The bits of the byte that an event begins with. Those that say "same" leave
// a field out that equals the previous event's; before the first event all
// fields are empty.
const (
	sameTopic = 1 << iota
	sameAggregateType
	sameAggregateID
	sameType
	sameHeaders
	hasVersion // AggregateVersion follows; without it there is none
	reserved   // 0
	mark       // 1: neither zeros nor ASCII are taken for an event
)

// A Header is a name and a value that go to Kafka as a header of the record.
type Header struct{ Name, Value string }

// An Event is one event of an envelope. Its fields mean what the columns of
// the outbox table mean. All text is UTF-8 without NUL, as PostgreSQL's is: a
// [Reader] refuses other.
type Event struct {
	ID               [16]byte
	Topic            string
	AggregateType    string
	AggregateID      string
	Type             string
	AggregateVersion int64 // from 1; 0: none; a [Reader] refuses what is below
	Headers          []Header
	Payload          []byte
}

// AppendStart appends the beginning of an envelope to dst and returns the
// longer slice. At least one event must follow, and nothing else.
func AppendStart(dst []byte) []byte { return append(dst, Magic, Version) }

// AppendEvent appends e to the envelope that dst ends with and returns the
// longer slice. previous is the event appended before, nil for the first.
// Neither is kept.
//
// Nothing is checked here: the caller has found the text valid and the version
// not negative.
func AppendEvent(dst []byte, previous, e *Event) []byte {
	if previous == nil {
		previous = new(Event)
	}
	at := len(dst)
	dst = append(dst, mark)
	dst = append(dst, e.ID[:]...)
	flags := byte(mark)
	dst, flags = appendUnless(dst, flags, sameTopic, previous.Topic, e.Topic)
	dst, flags = appendUnless(dst, flags, sameAggregateType, previous.AggregateType, e.AggregateType)
	dst, flags = appendUnless(dst, flags, sameAggregateID, previous.AggregateID, e.AggregateID)
	dst, flags = appendUnless(dst, flags, sameType, previous.Type, e.Type)
	if e.AggregateVersion != 0 {
		flags |= hasVersion
		dst = binary.AppendUvarint(dst, uint64(e.AggregateVersion))
	}
	if slices.Equal(previous.Headers, e.Headers) {
		flags |= sameHeaders
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(e.Headers)))
		for i := range e.Headers {
			dst = appendText(dst, e.Headers[i].Name)
			dst = appendText(dst, e.Headers[i].Value)
		}
	}
	dst[at] = flags
	dst = binary.AppendUvarint(dst, uint64(len(e.Payload)))
	return append(dst, e.Payload...)
}

// appendUnless appends s unless it is the previous event's, and says which.
func appendUnless(dst []byte, flags, same byte, previous, s string) ([]byte, byte) {
	if previous == s {
		return dst, flags | same
	}
	return appendText(dst, s), flags
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
