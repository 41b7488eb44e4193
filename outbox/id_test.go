package outbox

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIDIsVersion7(t *testing.T) {
	t.Parallel()
	before := time.Now().Truncate(time.Millisecond)
	id := NewID()
	if id[6]>>4 != 7 || id[8]>>6 != 0b10 {
		t.Errorf("%v has version %d and variant %b, want 7 and 10", id, id[6]>>4, id[8]>>6)
	}
	if at := id.Time(); at.Before(before) || at.After(time.Now()) {
		t.Errorf("%v is of %v, made at %v", id, at, before)
	}
}

func TestIDsOfAWriteIncrease(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "now"))
		var last ID
		for range 50 { // the clock stands still
			id := newID(now, last)
			if bytes.Compare(id[:], last[:]) <= 0 || id[6]>>4 != 7 || id[8]>>6 != 0b10 {
				t.Fatalf("%v after %v", id, last)
			}
			last = id
		}
	})
}

func TestIDText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		back, err := ParseID(id.String())
		if err != nil || back != id {
			t.Fatalf("ParseID(%q) = %v, %v", id.String(), back, err)
		}
	})
	for _, bad := range []string{"", "0190163d8694739baea5966c26f8ad91", "0190163d-8694-739b-aea5-966c26f8ad9", "0190163d-8694-739b-aea5-966c26f8ad9g", "0190163d-8694-739b-aea5-966c26f8ad911"} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", bad, id)
		}
	}
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewID()
	}
}
