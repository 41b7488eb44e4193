package inbox

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

func TestIdentityAndOrderingKey(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	const uuid = "0190163d-8694-739b-aea5-966c26f8ad91"
	record := func(change func(*cloudevent.Event)) *kgo.Record {
		e := cloudevent.Event{ID: uuid, Source: "db", Type: "T", Subject: "42", AggregateType: "user", Time: at}
		change(&e)
		r := cloudevent.Record("topic", &e)
		r.Partition, r.Offset = 3, 7
		return r
	}
	tests := map[string]struct {
		record    *kgo.Record
		id, key   string
		time      time.Time
		isNoEvent bool
	}{
		"ours":            {record: record(func(*cloudevent.Event) {}), id: uuid, key: "user/42", time: at},
		"an id of others": {record: record(func(e *cloudevent.Event) { e.ID = "7" }), id: "db/7", key: "user/42", time: at},
		"no aggregate":    {record: record(func(e *cloudevent.Event) { e.AggregateType = "" }), id: uuid, key: "topic/42", time: at},
		"no key either": {
			record: func() *kgo.Record {
				r := record(func(e *cloudevent.Event) { e.AggregateType = "" })
				r.Key = nil
				return r
			}(),
			id: uuid, key: "topic/3/7", time: at,
		},
		"no time": {
			record: func() *kgo.Record {
				r := record(func(*cloudevent.Event) {})
				for i := range r.Headers {
					if r.Headers[i].Key == cloudevent.HeaderTime {
						r.Headers = append(r.Headers[:i], r.Headers[i+1:]...)
						break
					}
				}
				return r
			}(),
			id: uuid, key: "user/42", time: time.Unix(0, 0).UTC(),
		},
		"no event": {
			record: &kgo.Record{Topic: "topic", Partition: 3, Offset: 7, Key: []byte("42"), Timestamp: at},
			id:     "record:topic/3/7", key: "topic/42", time: at, isNoEvent: true,
		},
		"no event of a known aggregate": {
			record: func() *kgo.Record {
				r := record(func(*cloudevent.Event) {})
				r.Headers[0].Value = []byte("0.3")
				return r
			}(),
			id: "record:topic/3/7", key: "user/42", time: at, isNoEvent: true,
		},
		"a timestamp of another age": {
			record: &kgo.Record{Topic: "topic", Partition: 3, Offset: 7, Key: []byte("42"), Timestamp: time.UnixMilli(1 << 60)},
			id:     "record:topic/3/7", key: "topic/42", time: time.Unix(0, 0).UTC(), isNoEvent: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := (&Inbox{}).event(tt.record)
			if e.id != tt.id || e.key != tt.key || !e.time.Equal(tt.time) || (e.invalid != nil) != tt.isNoEvent {
				t.Errorf("id %q, key %q, time %v, %v, want %q, %q, %v, no event: %t", e.id, e.key, e.time, e.invalid, tt.id, tt.key, tt.time, tt.isNoEvent)
			}
		})
	}
}

// TestTextIsStorable gives PostgreSQL nothing that it would refuse, and
// different texts for different strings.
func TestTextIsStorable(t *testing.T) {
	t.Parallel()
	anyText := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + strings.Repeat("x", rapid.SampledFrom([]int{0, 0, 0, maxText - 1, maxText, 5 * maxText}).Draw(t, "more"))
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyText.Draw(t, "a"), anyText.Draw(t, "b")
		if s := text(a); !utf8.ValidString(s) || strings.Contains(s, "\x00") || len(s) > maxText {
			t.Fatalf("text(%q) = %q", a, s)
		}
		if (text(a) == text(b)) != (a == b) {
			t.Fatalf("%q and %q became %q and %q", a, b, text(a), text(b))
		}
	})
}

func TestIsUUID(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"0190163d-8694-739b-aea5-966c26f8ad91": true, "0190163D-8694-739B-AEA5-966C26F8AD91": true,
		"0190163d-8694-739b-aea5-966c26f8ad9": false, "0190163d-8694-739b-aea5-966c26f8ad9g": false,
		"0190163d08694-739b-aea5-966c26f8ad91": false, "": false,
	} {
		if got := isUUID(s); got != want {
			t.Errorf("isUUID(%q) = %t", s, got)
		}
	}
}
