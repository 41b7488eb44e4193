package inbox

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// An event is one record, fetched or taken from inbox_dead, with all that its
// handling goes by.
type event struct {
	cloudevent.Event
	record *kgo.Record

	id      string    // inbox.event_id
	time    time.Time // inbox.event_time
	key     string    // inbox_dead.ordering_key
	handler handler   // nil: its type has none
	invalid error     // why the record is no CloudEvent; its attributes are then zero
}

// event reads a record. It never fails: what can't be read is said in invalid.
func (in *Inbox) event(r *kgo.Record) event {
	ce, err := cloudevent.Decode(r)
	if err != nil {
		return event{record: r, invalid: err, id: text("record:" + place(r)), time: storable(r.Timestamp), key: orderingKey(r,
			header(r, cloudevent.HeaderAggregateType), header(r, cloudevent.HeaderSubject))}
	}
	e := event{Event: ce, record: r, id: text(ce.ID), time: storable(ce.Time), key: orderingKey(r, ce.AggregateType, ce.Subject)}
	if !isUUID(ce.ID) {
		// The id of a foreign producer is its own only within its source.
		e.id = text(ce.Source + "/" + ce.ID)
	}
	if ce.Time.Equal(r.Timestamp) && header(r, cloudevent.HeaderTime) == "" {
		// Another offset may have another timestamp.
		e.time = time.Unix(0, 0).UTC()
	}
	e.handler = in.handlers[ce.Type]
	return e
}

// orderingKey names what events are kept in order by. A record without an
// aggregate and without a key has no order in Kafka either: it is alone.
func orderingKey(r *kgo.Record, aggregateType, aggregateID string) string {
	switch {
	case aggregateType != "" && aggregateID != "":
		return text(aggregateType + "/" + aggregateID)
	case r.Key != nil:
		return text(r.Topic + "/" + string(r.Key))
	default:
		return text(place(r))
	}
}

func place(r *kgo.Record) string {
	return r.Topic + "/" + strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10)
}

func header(r *kgo.Record, name string) string {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}

// maxText keeps ids and keys well below the 2704 bytes that an index entry of
// PostgreSQL can have, two of them together.
const maxText = 1000

// text gives s, or what stands for it where PostgreSQL could not store or
// index it.
func text(s string) string {
	switch {
	case len(s) > maxText:
		sum := sha256.Sum256([]byte(s))
		return "sha256:" + hex.EncodeToString(sum[:])
	case strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s):
		return text(`\x` + hex.EncodeToString([]byte(s)))
	default:
		return s
	}
}

// storable gives t, or 1970 where PostgreSQL could not store it: a record's
// timestamp may be any number.
func storable(t time.Time) time.Time {
	if y := t.Year(); y < 1 || y > 9999 {
		return time.Unix(0, 0).UTC()
	}
	return t
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return true
}
