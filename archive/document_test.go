package archive

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

var (
	eventTime  = time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC)
	archivedAt = time.Date(2026, 1, 31, 12, 0, 1, 0, time.UTC)
)

func sampleEvent() cloudevent.Event {
	return cloudevent.Event{
		ID: "0190163d-8694-739b-aea5-966c26f8ad91", Source: "userdb", Type: "UserCreated", Subject: "42",
		Time: eventTime, ContentType: "application/json", Sequence: 7, AggregateType: "user", AggregateVersion: 3,
		Position: "1/16/B374D848/0",
		Headers:  []cloudevent.Header{{Name: "userId", Value: "u1"}, {Name: "x", Value: "\xff"}, {Name: "traceparent", Value: "00-ab-cd-01"}},
		Data:     []byte(`{"email": "ada@example.org", "balance": 12.50}`),
	}
}

// roundTrip gives the event as it comes out of Kafka.
func roundTrip(t testing.TB, e *cloudevent.Event) (cloudevent.Event, *kgo.Record) {
	t.Helper()
	r := cloudevent.Record("user.created", e)
	r.Partition, r.Offset = 2, 1234
	decoded, err := cloudevent.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	return decoded, r
}

func encode(t testing.TB, e *cloudevent.Event, r *kgo.Record, decoded bool) bson.Raw {
	t.Helper()
	var enc encoder
	b, hashAt, err := enc.appendDocument([]byte("before"), e, r, archivedAt, decoded)
	if err != nil {
		t.Fatal(err)
	}
	raw := bson.Raw(b[len("before"):])
	if err := raw.Validate(); err != nil {
		t.Fatal(err)
	}
	_, hash := raw.Lookup("hash").Binary()
	if !bytes.Equal(hash, b[hashAt:hashAt+32]) {
		t.Error("hashAt does not say where the hash stands")
	}
	return raw
}

func TestDocumentIsWhatTheDriverWouldWrite(t *testing.T) {
	t.Parallel()
	sample := sampleEvent()
	foreign := cloudevent.Event{ID: "1", Source: "/elsewhere", Type: "t", Time: eventTime, ContentType: "image/png", Data: []byte{0, 0xff}}
	e1, r1 := roundTrip(t, &sample)
	e2, r2 := roundTrip(t, &foreign)
	r2.Key = []byte("\xfe")
	var h hasher
	type d = bson.D
	tests := map[string]struct {
		event  *cloudevent.Event
		record *kgo.Record
		want   bson.D
	}{
		"of a service": {&e1, r1, d{
			{Key: "_id", Value: sample.ID},
			{Key: "source", Value: "userdb"},
			{Key: "seq", Value: int64(7)},
			{Key: "aggregateType", Value: "user"},
			{Key: "aggregateId", Value: "42"},
			{Key: "eventVersion", Value: int64(3)},
			{Key: "eventType", Value: "UserCreated"},
			{Key: "eventData", Value: d{{Key: "email", Value: "ada@example.org"}, {Key: "balance", Value: 12.5}}},
			{Key: "payload", Value: sample.Data},
			{Key: "contentType", Value: "application/json"},
			{Key: "timestamp", Value: bson.NewDateTimeFromTime(eventTime)},
			{Key: "metadata", Value: d{{Key: "source", Value: "userdb"}, {Key: "userId", Value: "u1"}, {Key: "traceparent", Value: "00-ab-cd-01"}}},
			{Key: "kafka", Value: d{{Key: "topic", Value: "user.created"}, {Key: "partition", Value: int32(2)}, {Key: "offset", Value: int64(1234)}}},
			{Key: "headers", Value: bson.A{
				d{{Key: "name", Value: "ce_time"}, {Key: "value", Value: "2026-01-31T12:00:00.123456Z"}},
				d{{Key: "name", Value: "ce_position"}, {Key: "value", Value: "1/16/B374D848/0"}},
				d{{Key: "name", Value: "userId"}, {Key: "value", Value: "u1"}},
				d{{Key: "name", Value: "x"}, {Key: "value", Value: []byte("\xff")}},
				d{{Key: "name", Value: "traceparent"}, {Key: "value", Value: "00-ab-cd-01"}},
			}},
			{Key: "hash", Value: h.appendHash(nil, &e1)},
			{Key: "archivedAt", Value: bson.NewDateTimeFromTime(archivedAt)},
		}},
		"of somebody else": {&e2, r2, d{
			{Key: "_id", Value: "1"},
			{Key: "source", Value: "/elsewhere"},
			{Key: "eventType", Value: "t"},
			{Key: "payload", Value: []byte{0, 0xff}},
			{Key: "contentType", Value: "image/png"},
			{Key: "timestamp", Value: bson.NewDateTimeFromTime(eventTime)},
			{Key: "metadata", Value: d{{Key: "source", Value: "/elsewhere"}}},
			{Key: "kafka", Value: d{{Key: "topic", Value: "user.created"}, {Key: "partition", Value: int32(2)}, {Key: "offset", Value: int64(1234)}, {Key: "key", Value: []byte("\xfe")}}},
			{Key: "headers", Value: bson.A{d{{Key: "name", Value: "ce_time"}, {Key: "value", Value: "2026-01-31T12:00:00.123456Z"}}}},
			{Key: "hash", Value: h.appendHash(nil, &e2)},
			{Key: "archivedAt", Value: bson.NewDateTimeFromTime(archivedAt)},
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := bson.Marshal(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			if got := encode(t, tt.event, tt.record, true); !bytes.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, bson.Raw(want))
			}
		})
	}
}

func TestDocumentWithoutEventData(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		contentType string
		data        string
		decoded     bool
		want        bool
	}{
		"JSON":                      {"application/json", `{}`, true, true},
		"JSON with a charset":       {"application/JSON; charset=utf-8", `{}`, true, true},
		"JSON by its suffix":        {"application/vnd.user+json", `{}`, true, true},
		"no content type":           {"", `{}`, true, true},
		"another content type":      {"text/plain", `{}`, true, false},
		"JSON in name only":         {"application/json", `{`, true, false},
		"JSON that BSON can't hold": {"application/json", `{"a":1,"a":2}`, true, false},
		"not wanted":                {"application/json", `{}`, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := sampleEvent()
			e, r := roundTrip(t, &e)
			e.ContentType, e.Data = tt.contentType, []byte(tt.data)
			raw := encode(t, &e, r, tt.decoded)
			if _, err := raw.LookupErr("eventData"); (err == nil) != tt.want {
				t.Errorf("eventData there: %t, want %t", err == nil, tt.want)
			}
			if _, payload := raw.Lookup("payload").Binary(); string(payload) != tt.data {
				t.Errorf("payload = %q, want %q", payload, tt.data)
			}
		})
	}
}

func TestDocumentStaysBelowTheLimit(t *testing.T) {
	t.Parallel()
	e := sampleEvent()
	e.Data = []byte(`"` + strings.Repeat("x", 9<<20) + `"`)
	e, r := roundTrip(t, &e)
	raw := encode(t, &e, r, true)
	if len(raw) > maxDocument {
		t.Errorf("the document takes %d bytes, MongoDB stores %d", len(raw), maxDocument)
	}
	if _, payload := raw.Lookup("payload").Binary(); !bytes.Equal(payload, e.Data) {
		t.Error("the payload is not whole")
	}
}

func TestDocumentRefusesNamesThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	e := sampleEvent()
	e, r := roundTrip(t, &e)
	e.Subject = "4\xff2"
	var enc encoder
	got, _, err := enc.appendDocument([]byte("before"), &e, r, archivedAt, true)
	if err == nil || string(got) != "before" {
		t.Errorf("got %q, %v; want what was there before and an error", got, err)
	}
}

func TestNilPayloadIsLeftOut(t *testing.T) {
	t.Parallel()
	e := sampleEvent()
	e, r := roundTrip(t, &e)
	e.Data = nil
	if v, err := encode(t, &e, r, true).LookupErr("payload"); err == nil {
		t.Errorf("payload = %v, want none", v)
	}
	e.Data = []byte{}
	if _, err := encode(t, &e, r, true).LookupErr("payload"); err != nil {
		t.Error("an empty payload is left out")
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	var h hasher
	base := sampleEvent()
	want := h.appendHash(nil, &base)
	same := map[string]func(*cloudevent.Event){
		"sequence": func(e *cloudevent.Event) { e.Sequence++ },
		"position": func(e *cloudevent.Event) { e.Position = "2/0/1/0" },
		"headers":  func(e *cloudevent.Event) { e.Headers = nil },
		"time":     func(e *cloudevent.Event) { e.Time = e.Time.Add(time.Second) },
	}
	for name, change := range same {
		e := sampleEvent()
		change(&e)
		if !bytes.Equal(h.appendHash(nil, &e), want) {
			t.Errorf("another %s makes another hash", name)
		}
	}
	other := map[string]func(*cloudevent.Event){
		"id":                   func(e *cloudevent.Event) { e.ID += "x" },
		"source":               func(e *cloudevent.Event) { e.Source += "x" },
		"type":                 func(e *cloudevent.Event) { e.Type += "x" },
		"subject":              func(e *cloudevent.Event) { e.Subject += "x" },
		"aggregate type":       func(e *cloudevent.Event) { e.AggregateType += "x" },
		"aggregate version":    func(e *cloudevent.Event) { e.AggregateVersion++ },
		"content type":         func(e *cloudevent.Event) { e.ContentType += "x" },
		"payload":              func(e *cloudevent.Event) { e.Data = append(bytes.Clone(e.Data), ' ') },
		"border of two fields": func(e *cloudevent.Event) { e.Source, e.Type = e.Source+"U", e.Type[1:] },
	}
	seen := map[string]string{string(want): "the event itself"}
	for name, change := range other {
		e := sampleEvent()
		change(&e)
		hash := string(h.appendHash(nil, &e))
		if before, ok := seen[hash]; ok {
			t.Errorf("another %s makes the hash of another %s", name, before)
		}
		seen[hash] = name
	}
}

func BenchmarkAppendDocument(b *testing.B) {
	e := sampleEvent()
	e.Headers = e.Headers[:1]
	e.Data = []byte(`{"id":"0190163d-8694-739b-aea5-966c26f8ad91","email":"ada@example.org","name":"Ada Lovelace","balance":1234.56,"note":"` + strings.Repeat("x", 280) + `"}`)
	e, r := roundTrip(b, &e)
	var enc encoder
	dst := make([]byte, 0, 8192)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := enc.appendDocument(dst, &e, r, archivedAt, true); err != nil {
			b.Fatal(err)
		}
	}
}
