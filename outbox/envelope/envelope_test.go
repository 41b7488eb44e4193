package envelope_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox/envelope"
)

func encode(events []envelope.Event) []byte {
	b := envelope.AppendStart(nil)
	var previous *envelope.Event
	for i := range events {
		b = envelope.AppendEvent(b, previous, &events[i])
		previous = &events[i]
	}
	return b
}

// decode gives copies, so that they outlive b.
func decode(b []byte) ([]envelope.Event, error) {
	r, err := envelope.NewReader(b)
	if err != nil {
		return nil, err
	}
	var events []envelope.Event
	for {
		var e envelope.Event
		ok, err := r.Next(&e)
		if err != nil || !ok {
			return events, err
		}
		events = append(events, e)
	}
}

// example is the envelope that docs/formats/envelope.md shows.
func example() []envelope.Event {
	id := [16]byte{0x01, 0x9a, 0xb4, 0x7c, 0x2a, 0x00, 0x70, 0x01, 0x80, 0, 0, 0, 0, 0, 0, 0x01}
	headers := []envelope.Header{{Name: "requestId", Value: "r-7"}}
	first := envelope.Event{
		ID: id, Topic: "user.created", AggregateType: "user", AggregateID: "42", Type: "UserCreated",
		AggregateVersion: 1, Headers: headers, Payload: []byte(`{"name":"Ada"}`),
	}
	second := first
	second.ID[15] = 2
	second.Topic, second.Type, second.AggregateVersion, second.Payload = "user.updated", "UserUpdated", 300, nil
	return []envelope.Event{first, second}
}

// exampleBytes are example's bytes, a line for what docs/formats/envelope.md
// explains in a line.
var exampleBytes = []string{
	"fe01",
	"a0", "019ab47c2a0070018000000000000001",
	"0c757365722e63726561746564", "0475736572", "023432", "0b5573657243726561746564",
	"01", "01", "09726571756573744964", "03722d37",
	"0e7b226e616d65223a22416461227d",
	"b6", "019ab47c2a0070018000000000000002",
	"0c757365722e75706461746564", "0b5573657255706461746564",
	"ac02",
	"00",
}

func TestTheBytesAreFixed(t *testing.T) {
	t.Parallel()
	want, err := hex.DecodeString(strings.Join(exampleBytes, ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(example()); string(got) != string(want) {
		t.Errorf("the example is encoded as\n%x, want\n%x", got, want)
	}
	got, err := decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the example is decoded with -want +got:\n%s", diff)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	// Few different values, so that most fields equal the previous event's.
	text := rapid.OneOf(rapid.SampledFrom([]string{"", "user", "42", "UserCreated"}), rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool { return r != 0 }), 0, 300, -1))
	many := make([]envelope.Header, 20)
	header := rapid.Custom(func(t *rapid.T) envelope.Header {
		return envelope.Header{Name: text.Draw(t, "name"), Value: text.Draw(t, "value")}
	})
	event := rapid.Custom(func(t *rapid.T) envelope.Event {
		e := envelope.Event{
			Topic: text.Draw(t, "topic"), AggregateType: text.Draw(t, "aggregate type"), AggregateID: text.Draw(t, "aggregate id"), Type: text.Draw(t, "type"),
			AggregateVersion: rapid.Int64Min(0).Draw(t, "version"),
			Headers:          rapid.OneOf(rapid.Just([]envelope.Header(nil)), rapid.Just([]envelope.Header{{Name: "a", Value: "b"}}), rapid.Just(many), rapid.SliceOfN(header, 0, 12)).Draw(t, "headers"),
			Payload:          rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
		}
		copy(e.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(event, 1, 20).Draw(t, "events")
		got, err := decode(encode(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("-written +read:\n%s", diff)
		}
	})
}

// TestTheReadersHeadersAreItsOwn spoils every event before the next is read
// into it.
func TestTheReadersHeadersAreItsOwn(t *testing.T) {
	t.Parallel()
	r, err := envelope.NewReader(encode(example()))
	if err != nil {
		t.Fatal(err)
	}
	var e envelope.Event
	for _, want := range example() {
		if ok, err := r.Next(&e); !ok || err != nil {
			t.Fatalf("Next: %t, %v", ok, err)
		}
		if diff := cmp.Diff(want, e, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		clear(e.Headers)
		e = envelope.Event{Topic: "spoiled", AggregateType: "spoiled", AggregateID: "spoiled", Type: "spoiled", Headers: e.Headers}
	}
	if ok, err := r.Next(&e); ok || err != nil {
		t.Errorf("behind the last event, Next: %t, %v", ok, err)
	}
}

func TestDamageIsAnError(t *testing.T) {
	t.Parallel()
	whole := encode(example())
	boundary := len(encode(example()[:1]))
	with := func(at int, c byte) []byte {
		b := append([]byte(nil), whole...)
		b[at] = c
		return b
	}
	// An event of a flag byte, an id of zeros, and what rest says.
	bare := func(flags byte, rest string) []byte {
		return append(append(append(envelope.AppendStart(nil), flags), make([]byte, 16)...), rest...)
	}
	const allSame, hasVersion = 0x9f, 0x20
	type test struct {
		in     []byte
		err    error
		offset int
		event  int
	}
	tests := map[string]test{
		"nothing":             {in: nil, err: envelope.ErrNotEnvelope},
		"JSON":                {in: []byte(`{"a":1}`), err: envelope.ErrNotEnvelope},
		"no version":          {in: whole[:1], err: envelope.ErrTruncated, offset: 1},
		"another version":     {in: with(1, 2), err: envelope.ErrVersion, offset: 1},
		"no event":            {in: whole[:2], err: envelope.ErrEmpty, offset: 2},
		"reserved flag":       {in: with(2, whole[2]|0x40), err: envelope.ErrFlags, offset: 2},
		"unmarked event":      {in: with(boundary, whole[boundary]&0x7f), err: envelope.ErrFlags, offset: boundary, event: 1},
		"zeros behind":        {in: append(slices.Clip(whole), make([]byte, 100)...), err: envelope.ErrFlags, offset: len(whole), event: 2},
		"a byte behind":       {in: append(slices.Clip(whole), allSame), err: envelope.ErrTruncated, offset: len(whole) + 1, event: 2},
		"payload too long":    {in: bare(allSame, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), err: envelope.ErrTruncated, offset: 29},
		"length over 64 bits": {in: bare(allSame, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), err: envelope.ErrNumber, offset: 19},
		"version 0":           {in: bare(allSame|hasVersion, "\x00\x00"), err: envelope.ErrNumber, offset: 19},
		"negative version":    {in: bare(allSame|hasVersion, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"), err: envelope.ErrNumber, offset: 19},
		"too many headers":    {in: bare(allSame&^0x10, "\xff\xff\xff\xff\x0f\x00\x00\x00"), err: envelope.ErrTruncated, offset: 19},
		"topic not UTF-8":     {in: bare(allSame&^0x01, "\x02a\xff\x00"), err: envelope.ErrText, offset: 20},
		"type with NUL":       {in: bare(allSame&^0x08, "\x02a\x00\x00"), err: envelope.ErrText, offset: 20},
		"header not UTF-8":    {in: bare(allSame&^0x10, "\x01\x01a\x01\xff\x00"), err: envelope.ErrText, offset: 23},
	}
	for n := 3; n < len(whole); n++ {
		if n == boundary {
			continue // an envelope of one event
		}
		event := 0
		if n > boundary {
			event = 1
		}
		tests[fmt.Sprintf("cut to %d bytes", n)] = test{in: whole[:n], err: envelope.ErrTruncated, offset: -1, event: event}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := decode(tt.in)
			var damage *envelope.Error
			if !errors.As(err, &damage) || !errors.Is(err, tt.err) {
				t.Fatalf("decode: %v, want an Error that wraps %q", err, tt.err)
			}
			if damage.Event != tt.event || tt.offset >= 0 && damage.Offset != tt.offset || damage.Offset > len(tt.in) {
				t.Errorf("decode: %v, want event %d at byte %d", err, tt.event, tt.offset)
			}
		})
	}
}

func TestAnErrorStays(t *testing.T) {
	t.Parallel()
	whole := encode(example())
	r, err := envelope.NewReader(whole[:len(whole)-1])
	if err != nil {
		t.Fatal(err)
	}
	var e envelope.Event
	if ok, err := r.Next(&e); !ok || err != nil {
		t.Fatalf("first event: %t, %v", ok, err)
	}
	_, first := r.Next(&e)
	ok, again := r.Next(&e)
	if first == nil || ok || !errors.Is(again, first) {
		t.Errorf("Next says %v and then %t, %v", first, ok, again)
	}
}

// FuzzDecode feeds garbage: nothing panics, and what is read is written and
// read again as the same.
func FuzzDecode(f *testing.F) {
	f.Add(encode(example()))
	f.Add(envelope.AppendStart(nil))
	f.Add(append(append(envelope.AppendStart(nil), 0x9f), make([]byte, 17)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := decode(b)
		var damage *envelope.Error
		if err != nil && (!errors.As(err, &damage) || damage.Offset > len(b) || damage.Event != len(events)) {
			t.Fatalf("decode %x: %d events, then %v", b, len(events), err)
		}
		if len(events) == 0 {
			return
		}
		again, err := decode(encode(events))
		if err != nil {
			t.Fatalf("what was read from %x is refused when written again: %v", b, err)
		}
		if diff := cmp.Diff(events, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("-read +written and read again:\n%s", diff)
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	events := example()
	buf := encode(events)
	if n := testing.AllocsPerRun(100, func() {
		buf = envelope.AppendStart(buf[:0])
		buf = envelope.AppendEvent(buf, nil, &events[0])
		buf = envelope.AppendEvent(buf, &events[0], &events[1])
	}); n != 0 {
		t.Errorf("encoding into a reused buffer allocates %v times, want 0", n)
	}
	e := envelope.Event{Headers: make([]envelope.Header, 0, 4)}
	read := 0
	if n := testing.AllocsPerRun(100, func() {
		r, err := envelope.NewReader(buf)
		for ok := err == nil; ok; {
			if ok, err = r.Next(&e); ok {
				read++
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("decoding into a reused event allocates %v times, want 0", n)
	}
	if want := 101 * len(events); read != want {
		t.Errorf("%d events were read, want %d", read, want)
	}
}

// hundred events of 400 bytes, ten of each aggregate.
func hundred() []envelope.Event {
	headers := []envelope.Header{{Name: "requestId", Value: "0f8fad5b-d9cb-469f-a165-70867728950e"}, {Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	payload := fmt.Appendf(nil, `{"note":"%0390d"}`, 7)
	events := make([]envelope.Event, 100)
	for i := range events {
		events[i] = envelope.Event{
			ID: [16]byte{15: byte(i)}, Topic: "user.updated", AggregateType: "user", AggregateID: fmt.Sprint(i / 10), Type: "UserUpdated",
			AggregateVersion: int64(i + 1), Headers: headers, Payload: payload,
		}
	}
	return events
}

func BenchmarkEncode(b *testing.B) {
	events := hundred()
	buf := encode(events)
	b.ReportAllocs()
	for b.Loop() {
		buf = envelope.AppendStart(buf[:0])
		var previous *envelope.Event
		for i := range events {
			buf = envelope.AppendEvent(buf, previous, &events[i])
			previous = &events[i]
		}
	}
	report(b, len(events), len(buf))
}

func BenchmarkDecode(b *testing.B) {
	events := hundred()
	buf := encode(events)
	e := envelope.Event{Headers: make([]envelope.Header, 0, 4)}
	b.ReportAllocs()
	for b.Loop() {
		r, err := envelope.NewReader(buf)
		for ok := err == nil; ok; {
			ok, err = r.Next(&e)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	report(b, len(events), len(buf))
}

func report(b *testing.B, events, size int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
	b.ReportMetric(float64(size)/float64(events), "bytes/event")
}
