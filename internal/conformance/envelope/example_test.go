package envelope_test

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/envelope"
)

// documented gives the bytes of the example in docs/formats/envelope.md: the
// pairs of hex digits that its lines begin with.
func documented(t *testing.T) []byte {
	t.Helper()
	page, err := os.ReadFile("../../../docs/formats/envelope.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "\n```\n")
	block, _, closed := strings.Cut(block, "\n```\n")
	if !found || !closed {
		t.Fatal("the page has no code block")
	}
	var digits strings.Builder
	pairs := regexp.MustCompile(`^([0-9a-f]{2} )+`)
	for line := range strings.Lines(block) {
		digits.WriteString(strings.ReplaceAll(pairs.FindString(line), " ", ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTheDocumentsExample reads what the page shows, as what the page says it
// is, and writes the same bytes.
func TestTheDocumentsExample(t *testing.T) {
	t.Parallel()
	b := documented(t)
	if len(b) != 128 {
		t.Errorf("the example has %d bytes, the page says 128", len(b))
	}
	var ids [2]outbox.ID
	for i, text := range []string{"019ab47c-2a00-7001-8000-000000000001", "019ab47c-2a00-7001-8000-000000000002"} {
		var err error
		if ids[i], err = outbox.ParseID(text); err != nil {
			t.Fatal(err)
		}
	}
	headers := []envelope.Header{{Name: "requestId", Value: "r-7"}}
	want := []envelope.Event{
		{ID: ids[0], Topic: "user.created", AggregateType: "user", AggregateID: "42", Type: "UserCreated", AggregateVersion: 1, Headers: headers, Payload: []byte(`{"name":"Ada"}`)},
		{ID: ids[1], Topic: "user.updated", AggregateType: "user", AggregateID: "42", Type: "UserUpdated", AggregateVersion: 300, Headers: headers},
	}
	r, err := envelope.NewReader(b)
	if err != nil {
		t.Fatal(err)
	}
	again := envelope.AppendStart(nil)
	var previous *envelope.Event
	for i := range want {
		var e envelope.Event
		if ok, err := r.Next(&e); !ok || err != nil {
			t.Fatalf("event %d: %t, %v", i, ok, err)
		}
		if diff := cmp.Diff(want[i], e, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("event %d, -want +got:\n%s", i, diff)
		}
		again = envelope.AppendEvent(again, previous, &want[i])
		previous = &want[i]
	}
	if ok, err := r.Next(new(envelope.Event)); ok || err != nil {
		t.Errorf("behind the example: %t, %v", ok, err)
	}
	if string(again) != string(b) {
		t.Errorf("the events are encoded as\n%x, the page shows\n%x", again, b)
	}
}
