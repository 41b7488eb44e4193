package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
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
				Time: time.Unix(1_700_000_000, 123_456_000).UTC(), ContentType: "application/json", Sequence: int64(i + 1),
				AggregateType: text.Draw(t, "aggregate"), AggregateVersion: rapid.Int64Range(0, 1<<40).Draw(t, "version"),
				Position: fmt.Sprintf("3/16/B374D848/%d", i),
				Data:     []byte(strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 1000, 20_000, 70_000}).Draw(t, "payload"))),
				Headers:  []cloudevent.Header{{Name: "requestId", Value: "r1"}},
			}
			r := row{
				id: id, topic: []byte("t"), aggregateType: []byte(want.AggregateType), aggregateID: []byte(want.Subject),
				version: want.AggregateVersion, eventType: []byte(want.Type), payload: append([]byte{}, want.Data...),
				headers: []byte(`{"requestId": "r1"}`), createdAt: want.Time,
			}
			record, err := o.route(&r, 0x16_B374D848, int64(i), int64(i+1))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range [][]byte{r.topic, r.aggregateType, r.aggregateID, r.eventType, r.payload, r.headers} {
				clear(b)
			}
			all = append(all, sent{want, func() (cloudevent.Event, error) { return cloudevent.Decode(record) }, func() string { return string(record.Key) }})
		}
		for i, s := range all {
			got, err := s.get()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.want, got); diff != "" || s.key() != s.want.Subject {
				t.Fatalf("record %d, key %q, -want +got:\n%s", i, s.key(), diff)
			}
		}
	})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in          string
		contentType string
		want        []cloudevent.Header
		wantErr     bool
	}{
		"none":         {in: ""},
		"empty":        {in: "{}"},
		"plain":        {in: `{"a": "1", "b": "2"}`, want: []cloudevent.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}},
		"escaped":      {in: `{"a": "say \"hi\"\n"}`, want: []cloudevent.Header{{Name: "a", Value: "say \"hi\"\n"}}},
		"content type": {in: `{"content-type": "text/plain"}`, contentType: "text/plain"},
		"number kept":  {in: `{"n": 12, "o": {"p": [1]}}`, want: []cloudevent.Header{{Name: "n", Value: "12"}, {Name: "o", Value: `{"p": [1]}`}}},
		"CloudEvents'": {in: `{"ce_id": "x"}`, wantErr: true},
		"no object":    {in: `["a"]`, wantErr: true},
		"cut short":    {in: `{"a": "1"`, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h headerReader
			contentType, got, err := h.read([]byte(tt.in))
			if (err != nil) != tt.wantErr {
				t.Fatalf("read(%s): %v, want error: %t", tt.in, err, tt.wantErr)
			}
			if err == nil && (contentType != tt.contentType || len(got) != len(tt.want) || len(got) > 0 && !cmp.Equal(got, tt.want)) {
				t.Errorf("read(%s) = %q, %v, want %q, %v", tt.in, contentType, got, tt.contentType, tt.want)
			}
		})
	}
}
