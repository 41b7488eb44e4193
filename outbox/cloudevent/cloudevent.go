// Package cloudevent writes and reads the Kafka records of walpost: CloudEvents
// 1.0 in the Kafka binding's binary mode, the attributes in headers and the
// payload unchanged as the record's value.
//
// The binding is
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md.
package cloudevent

import (
	"time"
)

// Names of the headers that carry the attributes of an event, in the order in
// which they are written. Extensions of our own have no punctuation after the
// prefix, as CloudEvents asks of attribute names.
const (
	HeaderSpecVersion      = "ce_specversion"
	HeaderID               = "ce_id"
	HeaderSource           = "ce_source"
	HeaderType             = "ce_type"
	HeaderSubject          = "ce_subject"
	HeaderTime             = "ce_time"
	HeaderContentType      = "content-type"
	HeaderSequence         = "ce_sequence"
	HeaderAggregateType    = "ce_aggregatetype"
	HeaderAggregateVersion = "ce_aggregateversion"
	HeaderPosition         = "ce_position"
	// HeaderReplay marks a record that a replay wrote again.
	HeaderReplay = "ce_replay"
)

// SpecVersion is the version of CloudEvents that is written and read.
const SpecVersion = "1.0"

// DefaultContentType is the media type of a payload that names none.
const DefaultContentType = "application/json"

// An Event is one record, decoded.
type Event struct {
	ID      string // the event's identity, a UUID where walpost wrote it
	Source  string // whose outbox it came from; a URI reference
	Type    string // "UserCreated"
	Subject string // the aggregate's id, also the record's key

	// Time is when the event was written, to the microsecond.
	Time time.Time

	ContentType string // of Data; empty is written as [DefaultContentType]

	// Sequence counts the events of one Source in commit order: 1, 2, 3, …
	// without a hole. Zero is not written. In the header it has 19 digits,
	// because the extension asks for a string that sorts as the numbers do.
	Sequence int64

	AggregateType    string // "user"; empty is not written
	AggregateVersion int64  // from 1; zero is not written

	// Position tells where in the source's write-ahead log the event stands:
	// generation/commit LSN/index, "1/16/B374D848/0". Empty is not written.
	Position string

	// Headers are all other headers of the record, in their order.
	Headers []Header

	Data []byte // the payload, byte for byte
}

// A Header is one header that the writer of an event set.
type Header struct {
	Name  string
	Value string
}

// Get gives the value of the first header with that name, "" where there is
// none.
func (e *Event) Get(name string) string {
	for _, h := range e.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}
