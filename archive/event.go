package archive

import (
	"encoding/hex"
	"encoding/json"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// An Event is one archived event.
type Event struct {
	ID            string
	Source        string
	Sequence      int64 // 0 where the source counts none
	AggregateType string
	AggregateID   string
	Version       int64 // of the aggregate; 0 where it has none
	Type          string
	Payload       []byte // byte for byte; nil for a record without a value
	ContentType   string
	Time          time.Time // as exact as the producer wrote it
	Metadata      map[string]string
	Kafka         Position
	Headers       []Header
	Hash          []byte // of what must not change
	ArchivedAt    time.Time
}

// A Position is where Kafka had the record.
type Position struct {
	Topic     string `json:"topic" bson:"topic"`
	Partition int32  `json:"partition" bson:"partition"`
	Offset    int64  `json:"offset" bson:"offset"`
	Key       []byte `json:"key,omitempty" bson:"key"` // where it is not the aggregate's id
}

// A Header is a header of the record that no field of [Event] holds. A name or
// value that is not UTF-8 is kept as the bytes it was.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// MarshalJSON writes the event with the names of the stored document. A
// payload that is JSON stands as eventData, compacted but with each number as
// it was written; any other one as payload in base64.
func (e *Event) MarshalJSON() ([]byte, error) {
	data, payload := json.RawMessage(e.Payload), []byte(nil)
	if !json.Valid(e.Payload) {
		data, payload = nil, e.Payload
	}
	return json.Marshal(struct {
		ID            string            `json:"id"`
		Source        string            `json:"source"`
		Sequence      int64             `json:"seq,omitempty"`
		AggregateType string            `json:"aggregateType,omitempty"`
		AggregateID   string            `json:"aggregateId,omitempty"`
		Version       int64             `json:"eventVersion,omitempty"`
		Type          string            `json:"eventType"`
		Data          json.RawMessage   `json:"eventData,omitempty"`
		Payload       []byte            `json:"payload,omitempty"`
		ContentType   string            `json:"contentType,omitempty"`
		Time          time.Time         `json:"timestamp"`
		Metadata      map[string]string `json:"metadata,omitempty"`
		Kafka         Position          `json:"kafka"`
		Headers       []Header          `json:"headers,omitempty"`
		Hash          hexBytes          `json:"hash"`
		ArchivedAt    time.Time         `json:"archivedAt"`
	}{
		e.ID, e.Source, e.Sequence, e.AggregateType, e.AggregateID, e.Version, e.Type, data, payload,
		e.ContentType, e.Time, e.Metadata, e.Kafka, e.Headers, e.Hash, e.ArchivedAt,
	})
}

// document is an event as it is stored, without what a reader never needs.
type document struct {
	ID            string            `bson:"_id"`
	Source        string            `bson:"source"`
	Sequence      int64             `bson:"seq"`
	AggregateType string            `bson:"aggregateType"`
	AggregateID   string            `bson:"aggregateId"`
	Version       int64             `bson:"eventVersion"`
	Type          string            `bson:"eventType"`
	Payload       []byte            `bson:"payload"`
	ContentType   string            `bson:"contentType"`
	Timestamp     time.Time         `bson:"timestamp"`
	Metadata      map[string]string `bson:"metadata"`
	Kafka         Position          `bson:"kafka"`
	Headers       []storedHeader    `bson:"headers"`
	Hash          []byte            `bson:"hash"`
	ArchivedAt    time.Time         `bson:"archivedAt"`
}

// storedHeader holds strings, or bytes where they are not UTF-8.
type storedHeader struct {
	Name  bson.RawValue `bson:"name"`
	Value bson.RawValue `bson:"value"`
}

func (d *document) event() Event {
	e := Event{
		ID: d.ID, Source: d.Source, Sequence: d.Sequence,
		AggregateType: d.AggregateType, AggregateID: d.AggregateID, Version: d.Version,
		Type: d.Type, Payload: d.Payload, ContentType: d.ContentType, Time: d.Timestamp.UTC(),
		Metadata: d.Metadata, Kafka: d.Kafka, Hash: d.Hash, ArchivedAt: d.ArchivedAt.UTC(),
	}
	for _, h := range d.Headers {
		header := Header{Name: text(h.Name), Value: text(h.Value)}
		// The date is cut to milliseconds; the first ce_time header is exact.
		if header.Name == cloudevent.HeaderTime && e.Time.Equal(d.Timestamp) {
			if exact, err := time.Parse(time.RFC3339Nano, header.Value); err == nil {
				e.Time = exact.UTC()
			}
		}
		e.Headers = append(e.Headers, header)
	}
	return e
}

func text(v bson.RawValue) string {
	if s, ok := v.StringValueOK(); ok {
		return s
	}
	_, b, _ := v.BinaryOK()
	return string(b)
}

// hexBytes are bytes that are written as hexadecimal digits, as checksums are.
type hexBytes []byte

// MarshalText gives the digits.
func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }
