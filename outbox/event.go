package outbox

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed-048de892/walpost/outbox/envelope"
)

// DefaultMaxBytes is the size limit of an event where the [Writer] sets none.
// Kafka refuses by default a batch over 1,048,588 bytes; what is left between
// the two holds the headers that the relay adds and the batch's own framing.
const DefaultMaxBytes = 1_000_000

// maxTopic is the longest topic name Kafka takes: the name and the partition
// number must fit a file name.
const maxTopic = 249

// maxName bounds the names and ids of an event, which are repeated in headers
// and indexes.
const maxName = 512

// HeaderContentType is the header that tells the media type of the payload,
// "application/json" where it is missing.
const HeaderContentType = "content-type"

// Headers that the rest of the system knows by name: the archive files them
// as the event's metadata, and the trace goes on through them.
const (
	HeaderUserID        = "userId"        // who caused the event
	HeaderRequestID     = "requestId"     // the request in which it happened
	HeaderCorrelationID = "correlationId" // shared by all that one cause led to
	HeaderCausationID   = "causationId"   // id of the event or command that led to this one
	HeaderTraceparent   = "traceparent"   // W3C Trace Context
	HeaderTracestate    = "tracestate"
)

// An Event says that something happened to one aggregate.
type Event struct {
	// ID is the event's identity everywhere: in the table, in Kafka and in the
	// archive. Zero means a new one is made; set it to [NewID] to know it
	// beforehand.
	ID ID

	// Topic is the Kafka topic that gets the record: at most 249 letters,
	// digits, dots, underscores and dashes.
	Topic string

	// AggregateType and AggregateID say what the event is about, "user" and
	// "42". The id is the record's key: events of one id keep their order.
	// A type has no slash.
	AggregateType string
	AggregateID   string

	// AggregateVersion is the aggregate's version that this event made, from
	// 1. Zero means that the aggregate has no versions.
	AggregateVersion int64

	// Type says what happened: "UserCreated".
	Type string

	// Payload goes to Kafka unchanged. It must tell all a consumer needs: a
	// record can arrive before its transaction is visible to other sessions.
	Payload []byte

	// Headers go to Kafka as headers of the record. A name is printable ASCII
	// without spaces and does not begin with "ce_"; a value is UTF-8 without
	// NUL, since it is kept as jsonb.
	Headers map[string]string
}

// An EventError says which event of a Write was refused and why.
type EventError struct {
	Index int    // in the events given, from 0
	Field string // the [Event]'s field, "Headers[name]" for one header
	Value string // what stood there, shortened
	Hint  string // what would be accepted
}

func (e *EventError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("event %d: %s is empty: %s", e.Index, e.Field, e.Hint)
	}
	return fmt.Sprintf("event %d: %s %q: %s", e.Index, e.Field, e.Value, e.Hint)
}

func (e *Event) check(headers []envelope.Header, maxBytes int, refuse func(field, value, hint string)) {
	if !validTopic(e.Topic) {
		refuse("Topic", e.Topic, "use 1 to 249 letters, digits, dots, underscores and dashes")
	}
	const nameHint = "use 1 to 512 bytes of UTF-8 without control characters"
	if !validName(e.AggregateType) || strings.Contains(e.AggregateType, "/") {
		refuse("AggregateType", e.AggregateType, nameHint+" or slashes")
	}
	if !validName(e.AggregateID) {
		refuse("AggregateID", e.AggregateID, nameHint)
	}
	if e.AggregateVersion < 0 {
		refuse("AggregateVersion", strconv.FormatInt(e.AggregateVersion, 10), "count versions from 1, or leave 0 for none")
	}
	if !validName(e.Type) {
		refuse("Type", e.Type, nameHint)
	}
	for _, h := range headers {
		if !validHeaderName(h.Name) {
			refuse("Headers["+h.Name+"]", h.Name, "name it in printable ASCII without spaces, not beginning with ce_, which CloudEvents owns")
		}
		if !utf8.ValidString(h.Value) || strings.ContainsRune(h.Value, 0) {
			refuse("Headers["+h.Name+"]", h.Value, "use UTF-8 without NUL; encode binary values, as base64 for example")
		}
	}
	if size := e.size(headers); size > maxBytes {
		refuse("Payload", fmt.Sprintf("%d bytes", size),
			fmt.Sprintf("the event must be at most %d bytes with its names and headers; store a large payload elsewhere and send a reference", maxBytes))
	}
}

// size is what the event adds to a record, names and headers included.
func (e *Event) size(headers []envelope.Header) int {
	n := len(e.AggregateType) + len(e.AggregateID) + len(e.Type) + len(e.Payload)
	for _, h := range headers {
		n += len(h.Name) + len(h.Value)
	}
	return n
}

func validTopic(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > maxTopic {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func validHeaderName(s string) bool {
	if s == "" || len(s) > maxName || len(s) >= 3 && strings.EqualFold(s[:3], "ce_") {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
