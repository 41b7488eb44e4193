package cloudevent_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

func event() cloudevent.Event {
	return cloudevent.Event{
		ID: "0190163d-8694-739b-aea5-966c26f8ad91", Source: "userdb", Type: "UserCreated", Subject: "42",
		Time: time.Date(2026, 11, 24, 9, 30, 0, 123456000, time.UTC), ContentType: "application/json",
		Sequence: 17, AggregateType: "user", AggregateVersion: 3, Position: "1/16/B374D848/0",
		Headers: []cloudevent.Header{{Name: "requestId", Value: "r1"}, {Name: "requestId", Value: "r2"}},
		Data:    []byte(`{"id":"42"}`),
	}
}

// TestRecord is the format, byte by byte: see docs/formats/kafka.md.
func TestRecord(t *testing.T) {
	t.Parallel()
	e := event()
	r := cloudevent.Record("user.created", &e)
	var got [][2]string
	for _, h := range r.Headers {
		got = append(got, [2]string{h.Key, string(h.Value)})
	}
	want := [][2]string{
		{"ce_specversion", "1.0"},
		{"ce_id", "0190163d-8694-739b-aea5-966c26f8ad91"},
		{"ce_source", "userdb"},
		{"ce_type", "UserCreated"},
		{"ce_subject", "42"},
		{"ce_time", "2026-11-24T09:30:00.123456Z"},
		{"content-type", "application/json"},
		{"ce_sequence", "0000000000000000017"},
		{"ce_aggregatetype", "user"},
		{"ce_aggregateversion", "3"},
		{"ce_position", "1/16/B374D848/0"},
		{"requestId", "r1"},
		{"requestId", "r2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers, -want +got:\n%s", diff)
	}
	if string(r.Key) != "42" || string(r.Value) != `{"id":"42"}` || !r.Timestamp.Equal(e.Time) || r.Topic != "user.created" {
		t.Errorf("record %q %q %v %q", r.Key, r.Value, r.Timestamp, r.Topic)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(1, 50, -1)
		e := event()
		e.ID, e.Source, e.Type, e.Subject = text.Draw(t, "id"), text.Draw(t, "source"), text.Draw(t, "type"), text.Draw(t, "subject")
		e.Sequence = rapid.Int64Min(0).Draw(t, "sequence")
		e.AggregateVersion = rapid.Int64Min(0).Draw(t, "version")
		e.Data = rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		got, err := cloudevent.Decode(cloudevent.Record("t", &e))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func TestSequencesSortAsText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := event(), event()
		a.Sequence, b.Sequence = rapid.Int64Min(1).Draw(t, "a"), rapid.Int64Min(1).Draw(t, "b")
		if (header(a, "ce_sequence") < header(b, "ce_sequence")) != (a.Sequence < b.Sequence) {
			t.Fatalf("%s and %s", header(a, "ce_sequence"), header(b, "ce_sequence"))
		}
	})
}

func header(e cloudevent.Event, name string) string {
	for _, h := range cloudevent.Record("t", &e).Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ header, value string }{
		"no specversion":    {"ce_specversion", ""},
		"other specversion": {"ce_specversion", "0.3"},
		"no id":             {"ce_id", ""},
		"no source":         {"ce_source", ""},
		"no type":           {"ce_type", ""},
		"time":              {"ce_time", "yesterday"},
		"sequence":          {"ce_sequence", "one"},
		"sequence 0":        {"ce_sequence", "0"},
		"signed sequence":   {"ce_sequence", "+1"},
		"negative version":  {"ce_aggregateversion", "-1"},
		"structured mode":   {"content-type", "application/cloudevents+json"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := event()
			r := cloudevent.Record("t", &e)
			for i := range r.Headers {
				if r.Headers[i].Key == tt.header {
					r.Headers[i].Value = []byte(tt.value)
				}
			}
			_, err := cloudevent.Decode(r)
			var refused *cloudevent.AttributeError
			if !errors.As(err, &refused) || refused.Header != tt.header {
				t.Errorf("Decode: %v, want an AttributeError for %s", err, tt.header)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("ce_id", []byte("x"), "ce_sequence", []byte("1"))
	f.Add("content-type", []byte("application/json"), "ce_time", []byte("2026-11-24T09:30:00Z"))
	f.Fuzz(func(t *testing.T, name1 string, value1 []byte, name2 string, value2 []byte) {
		e := event()
		r := cloudevent.Record("t", &e)
		r.Headers = append([]kgo.RecordHeader{{Key: name1, Value: value1}, {Key: name2, Value: value2}}, r.Headers...)
		got, err := cloudevent.Decode(r)
		if err != nil {
			return
		}
		again, err := cloudevent.Decode(cloudevent.Record("t", &got))
		if err != nil {
			return // a header name that repeats an attribute is not ours to write
		}
		if again.ID != got.ID || again.Sequence != got.Sequence || string(again.Data) != string(got.Data) {
			t.Fatalf("%+v became %+v", got, again)
		}
	})
}

func TestEncodingIntoABufferAllocatesNothing(t *testing.T) {
	e := event()
	headers, buf := make([]kgo.RecordHeader, 0, 16), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { cloudevent.AppendHeaders(headers, buf, &e) }); n != 0 {
		t.Errorf("AppendHeaders allocates %v times, want 0", n)
	}
}
