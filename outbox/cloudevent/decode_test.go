package cloudevent_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// TestTheFirstOfAnAttributeCounts gives headers in any order and number: the
// first of each attribute is read, all others stay as they are and where they
// are.
func TestTheFirstOfAnAttributeCounts(t *testing.T) {
	t.Parallel()
	attributes := []string{"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_aggregatetype", "ce_position", "content-type"}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOf(rapid.SampledFrom(append([]string{"requestId", "x", "ce_other"}, attributes...))).Draw(t, "names")
		r := &kgo.Record{}
		first := map[string]string{}
		var others []cloudevent.Header
		add := func(name, value string) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
			_, again := first[name]
			for _, attribute := range attributes {
				if attribute == name && !again {
					first[name] = value
					return
				}
			}
			others = append(others, cloudevent.Header{Name: name, Value: value})
		}
		add("ce_specversion", "1.0")
		for _, name := range names {
			add(name, rapid.StringN(1, 9, -1).Draw(t, name))
		}
		for _, name := range attributes {
			add(name, "last")
		}
		got, err := cloudevent.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		want := cloudevent.Event{
			ID: first["ce_id"], Source: first["ce_source"], Type: first["ce_type"], Subject: first["ce_subject"],
			AggregateType: first["ce_aggregatetype"], Position: first["ce_position"], ContentType: first["content-type"], Headers: others,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

// TestDecodingAllocates two pieces of memory however many headers there are:
// the values, and the list of those that are no attributes.
func TestDecodingAllocates(t *testing.T) {
	e := event()
	r := cloudevent.Record("user.created", &e)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := cloudevent.Decode(r); err != nil {
			t.Error(err)
		}
	}); n > 2 {
		t.Errorf("Decode allocates %v times, want 2", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	e := event()
	r := cloudevent.Record("user.created", &e)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cloudevent.Decode(r); err != nil {
			b.Fatal(err)
		}
	}
}
