package relay

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/envelope"
)

// TestRecordsOwnTheirMemory routes rows out of one buffer that is overwritten
// after each, as the stream's is, and reads the records afterwards.
func TestRecordsOwnTheirMemory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := router{source: "userdb", generation: 3}
		text := rapid.StringN(1, 40, 200)
		type sent struct {
			want cloudevent.Event
			get  func() (cloudevent.Event, error)
			key  func() string
		}
		var all []sent
		for i := range rapid.IntRange(1, 60).Draw(t, "rows") {
			id := outbox.NewID()
			want := cloudevent.Event{
				ID: id.String(), Source: "userdb", Type: text.Draw(t, "type"), Subject: text.Draw(t, "id"),
				Time: time.Unix(1_700_000_000, 123_456_000).UTC(), ContentType: "text/plain", Sequence: int64(i + 1),
				AggregateType: text.Draw(t, "aggregate"), AggregateVersion: rapid.Int64Range(0, 1<<40).Draw(t, "version"),
				Position: fmt.Sprintf("3/16/B374D848/%d", i),
				Data:     []byte(strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 1000, 20_000, 70_000}).Draw(t, "payload"))),
				Headers:  []cloudevent.Header{{Name: "requestId", Value: "r1"}},
			}
			var buffer [][]byte // what r points into
			read := func(s string) []byte {
				buffer = append(buffer, []byte(s))
				return buffer[len(buffer)-1]
			}
			r := row{
				Event: envelope.Event{
					ID: id, Topic: view(read("t")), AggregateType: view(read(want.AggregateType)), AggregateID: view(read(want.Subject)),
					AggregateVersion: want.AggregateVersion, Type: view(read(want.Type)), Payload: read(string(want.Data)),
				},
				createdAt: want.Time,
			}
			if rapid.Bool().Draw(t, "in an envelope") {
				r.Headers = []envelope.Header{
					{Name: view(read("requestId")), Value: view(read("r1"))},
					{Name: view(read("content-type")), Value: view(read("text/plain"))},
				}
			} else {
				r.json = read(`{"requestId": "r1", "content-type": "text/plain"}`)
			}
			record, err := o.route(&r, 0x16_B374D848, int64(i), int64(i+1))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range buffer {
				clear(b)
			}
			all = append(all, sent{want, func() (cloudevent.Event, error) { return cloudevent.Decode(record) }, func() string { return string(record.Key) }})
		}
		payloads := cmp.Comparer(bytes.Equal) // cmp itself takes longer than all else here
		for i, s := range all {
			got, err := s.get()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.want, got, payloads); diff != "" || s.key() != s.want.Subject {
				t.Fatalf("record %d, key %q, -want +got:\n%s", i, s.key(), diff)
			}
		}
	})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	type list = []envelope.Header
	tests := map[string]struct {
		in          string
		list        list // of an envelope's event
		contentType string
		want        []cloudevent.Header
		wantErr     bool
	}{
		"none":         {},
		"empty":        {in: "{}"},
		"plain":        {in: `{"a": "1", "b": "2"}`, want: []cloudevent.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}},
		"escaped":      {in: `{"a": "say \"hi\"\n"}`, want: []cloudevent.Header{{Name: "a", Value: "say \"hi\"\n"}}},
		"content type": {in: `{"content-type": "text/plain"}`, contentType: "text/plain"},
		"number kept":  {in: `{"n": 12, "o": {"p": [1]}}`, want: []cloudevent.Header{{Name: "n", Value: "12"}, {Name: "o", Value: `{"p": [1]}`}}},
		"CloudEvents'": {in: `{"ce_id": "x"}`, wantErr: true},
		"no object":    {in: `["a"]`, wantErr: true},
		"cut short":    {in: `{"a": "1"`, wantErr: true},

		"list":                   {list: list{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}, want: []cloudevent.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}},
		"list with content type": {list: list{{Name: "content-type", Value: "text/plain"}, {Name: "b", Value: "2"}}, contentType: "text/plain", want: []cloudevent.Header{{Name: "b", Value: "2"}}},
		"list with CloudEvents'": {list: list{{Name: "ce_id", Value: "x"}}, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h headerReader
			contentType, got, err := h.read(&row{json: []byte(tt.in), Event: envelope.Event{Headers: tt.list}})
			if (err != nil) != tt.wantErr {
				t.Fatalf("read: %v, want error: %t", err, tt.wantErr)
			}
			if err == nil && (contentType != tt.contentType || len(got) != len(tt.want) || len(got) > 0 && !cmp.Equal(got, tt.want)) {
				t.Errorf("read = %q, %v, want %q, %v", contentType, got, tt.contentType, tt.want)
			}
		})
	}
}
