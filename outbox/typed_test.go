package outbox_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
)

// An address has had three schemas: {"name"}, {"first", "last"}, and
// {"first", "last", "email"}.
type address struct {
	First string `json:"first"`
	Last  string `json:"last"`
	Email string `json:"email"`
}

func addressAdded() outbox.Typed[address] {
	return outbox.Typed[address]{
		Name: "AddressAdded", Topic: "address.added", AggregateType: "address", Version: 3,
		Upcasters: map[int]func([]byte) ([]byte, error){1: splitName, 2: addEmail},
	}
}

func splitName(payload []byte) ([]byte, error) {
	var old struct{ Name string }
	if err := json.Unmarshal(payload, &old); err != nil {
		return nil, err
	}
	first, last, _ := strings.Cut(old.Name, " ")
	return json.Marshal(map[string]string{"first": first, "last": last})
}

func addEmail(payload []byte) ([]byte, error) {
	var members map[string]any
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errors.New("no members")
	}
	members["email"] = "unknown@example.org"
	return json.Marshal(members)
}

func TestTypedEvent(t *testing.T) {
	t.Parallel()
	typed := addressAdded()
	got, err := typed.Event("42", 7, address{First: "Ada", Last: "Lovelace"})
	if err != nil {
		t.Fatal(err)
	}
	want := outbox.Event{
		Topic: "address.added", AggregateType: "address", AggregateID: "42", AggregateVersion: 7, Type: "AddressAdded",
		Payload: []byte(`{"first":"Ada","last":"Lovelace","email":""}`), Headers: map[string]string{"schemaVersion": "3"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	typed.Version, typed.Codec = 1, lines{}
	got, err = typed.Event("42", 7, address{First: "Ada", Last: "Lovelace"})
	if err != nil || string(got.Payload) != "Ada\nLovelace\n" {
		t.Errorf("Event with a codec = %q, %v", got.Payload, err)
	}
	if diff := cmp.Diff(map[string]string{"content-type": "text/plain"}, got.Headers); diff != "" {
		t.Errorf("headers, -want +got:\n%s", diff)
	}
	if back, err := typed.Decode(0, got.Payload); err != nil || back.Last != "Lovelace" {
		t.Errorf("Decode with a codec = %v, %v", back, err)
	}
}

// lines is a codec: each field on a line of its own.
type lines struct{}

func (lines) ContentType() string { return "text/plain" }

func (lines) Append(dst []byte, a address) ([]byte, error) {
	return fmt.Appendf(dst, "%s\n%s\n%s", a.First, a.Last, a.Email), nil
}

func (lines) Decode(data []byte, a *address) error {
	part := strings.Split(string(data), "\n")
	if len(part) != 3 {
		return errors.New("want three lines")
	}
	a.First, a.Last, a.Email = part[0], part[1], part[2]
	return nil
}

// An event's headers are its own: adding to them must not reach the next one.
func TestTypedEventsShareNoHeaders(t *testing.T) {
	t.Parallel()
	typed := addressAdded()
	first, err := typed.Event("1", 1, address{})
	if err != nil {
		t.Fatal(err)
	}
	first.Headers["requestId"] = "r1"
	second, err := typed.Event("1", 2, address{})
	if err != nil || second.Headers["requestId"] != "" {
		t.Errorf("headers of the second event = %v, %v", second.Headers, err)
	}
}

func TestCheckRefusesTheEvent(t *testing.T) {
	t.Parallel()
	errNoEmail := errors.New("email: must not be empty")
	typed := addressAdded()
	typed.Check = func(payload []byte) error {
		if bytes.Contains(payload, []byte(`"email":""`)) {
			return errNoEmail
		}
		return nil
	}
	if _, err := typed.Event("1", 1, address{}); !errors.Is(err, errNoEmail) || !strings.Contains(err.Error(), "AddressAdded") {
		t.Errorf("Event = %v, want the error of Check with the type's name", err)
	}
	if _, err := typed.Event("1", 1, address{Email: "ada@example.org"}); err != nil {
		t.Errorf("Event = %v, want none", err)
	}
}

func TestDecodeEverySchemaVersion(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		version int
		payload string
		want    address
	}{
		"no header":    {payload: `{"name":"Ada Lovelace"}`, want: address{"Ada", "Lovelace", "unknown@example.org"}},
		"version 1":    {version: 1, payload: `{"name":"Ada Lovelace"}`, want: address{"Ada", "Lovelace", "unknown@example.org"}},
		"version 2":    {version: 2, payload: `{"first":"Ada","last":"L"}`, want: address{"Ada", "L", "unknown@example.org"}},
		"current":      {version: 3, payload: `{"first":"Ada","email":"e"}`, want: address{"Ada", "", "e"}},
		"other member": {version: 3, payload: `{"first":"Ada","street":"x"}`, want: address{First: "Ada"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload := []byte(tt.payload)
			got, err := addressAdded().Decode(tt.version, payload)
			if err != nil || got != tt.want {
				t.Errorf("Decode = %v, %v, want %v", got, err, tt.want)
			}
			if string(payload) != tt.payload {
				t.Errorf("the payload was changed to %s", payload)
			}
		})
	}
}

func TestVersionsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	called := false
	holed := outbox.Typed[address]{
		Name: "AddressAdded", Version: 4,
		Upcasters: map[int]func([]byte) ([]byte, error){
			1: func(p []byte) ([]byte, error) { called = true; return p, nil }, 3: addEmail,
		},
	}
	tests := map[string]struct {
		version int
		want    outbox.SchemaError
		hint    string
	}{
		"newer":             {version: 5, want: outbox.SchemaError{Name: "AddressAdded", Version: 5, Known: 4}, hint: "deploy this reader"},
		"no upcaster":       {version: 2, want: outbox.SchemaError{Name: "AddressAdded", Version: 2, Known: 4, Missing: 2}, hint: "add Typed.Upcasters[2]"},
		"no later upcaster": {version: 1, want: outbox.SchemaError{Name: "AddressAdded", Version: 1, Known: 4, Missing: 2}, hint: "add Typed.Upcasters[2]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := holed.Decode(tt.version, []byte(`{}`))
			var got *outbox.SchemaError
			if !errors.As(err, &got) || *got != tt.want {
				t.Fatalf("Decode = %v, want %v", err, &tt.want)
			}
			for _, part := range []string{"AddressAdded", strconv.Itoa(tt.version), tt.hint} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not tell %q", err, part)
				}
			}
		})
	}
	if called {
		t.Error("an upcaster was called on a way that ends half-way")
	}
	_, err := addressAdded().Decode(1, []byte(`[]`))
	if err == nil || !strings.Contains(err.Error(), "AddressAdded from schema version 1 to 2") {
		t.Errorf("Decode = %v, want the upcaster's error with type and versions", err)
	}
	v, err := addressAdded().Decode(3, []byte(`{"first":"Ada","last":1}`))
	if err == nil || !strings.Contains(err.Error(), "AddressAdded of schema version 3") || v != (address{}) {
		t.Errorf("Decode = %v, %v, want the codec's error with type and version, and no half of a value", v, err)
	}
}

func TestValidateTellsEveryProblem(t *testing.T) {
	t.Parallel()
	if err := addressAdded().Validate(); err != nil {
		t.Errorf("Validate of a good type = %v", err)
	}
	err := outbox.Typed[address]{
		Topic: "a b", AggregateType: "a/b", Version: 2,
		Upcasters: map[int]func([]byte) ([]byte, error){0: splitName, 1: nil, 2: addEmail},
	}.Validate()
	for _, want := range []string{
		"Typed[outbox_test.address]", ".Name", `.Topic "a b"`, `.AggregateType "a/b"`,
		".Upcasters[0]", ".Upcasters[1]", ".Upcasters[2]", "raise Version",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not tell %q:\n%v", want, err)
		}
	}
	err = outbox.Typed[address]{Name: "A", Topic: "a", AggregateType: "a", Version: -1}.Validate()
	if err == nil || !strings.Contains(err.Error(), `.Version "-1"`) {
		t.Errorf("Validate of version -1 = %v", err)
	}
}

func TestParseSchemaVersion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"": 1, "1": 1, "17": 17, "0": 0, "-1": 0, "+1": 0, "01": 0, "1.0": 0, "1 ": 0, "99999999999999999999": 0} {
		got, err := outbox.ParseSchemaVersion(in)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("ParseSchemaVersion(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
}

// A payload of any version n of m goes through the upcasters n, n+1, … m-1,
// each once and in that order.
func TestUpcastersRunInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		known := rapid.IntRange(1, 20).Draw(t, "known")
		from := rapid.IntRange(1, known).Draw(t, "from")
		typed := outbox.Typed[[]int]{Name: "N", Version: known, Upcasters: map[int]func([]byte) ([]byte, error){}}
		var want []int
		for n := 1; n < known; n++ {
			typed.Upcasters[n] = func(payload []byte) ([]byte, error) {
				var list []int
				if err := json.Unmarshal(payload, &list); err != nil {
					return nil, err
				}
				return json.Marshal(append(list, n))
			}
			if n >= from {
				want = append(want, n)
			}
		}
		got, err := typed.Decode(from, []byte(`[]`))
		if err != nil || len(got) != len(want) || len(want) > 0 && !cmp.Equal(got, want) {
			t.Fatalf("Decode from %d of %d called %v, %v, want %v", from, known, got, err, want)
		}
	})
}

// Whatever bytes of whatever version come, decoding gives a value that its own
// event gives back, or an error that names the type.
func FuzzTypedDecode(f *testing.F) {
	f.Add(1, []byte(`{"name":"Ada Lovelace"}`))
	f.Add(2, []byte(`{"first":"Ada","last":null}`))
	f.Add(3, []byte(`{"first":"\ud800"}`))
	f.Add(1, []byte(`null`))
	f.Add(9, []byte{0xff})
	f.Fuzz(func(t *testing.T, version int, payload []byte) {
		v, err := addressAdded().Decode(version, payload)
		if err != nil {
			if !strings.Contains(err.Error(), "AddressAdded") {
				t.Fatalf("error %q does not name the type", err)
			}
			return
		}
		e, err := addressAdded().Event("1", 1, v)
		if err != nil {
			t.Fatal(err)
		}
		again, err := addressAdded().Decode(3, e.Payload)
		if err != nil || again != v {
			t.Fatalf("%q of version %d is %q, its event decodes to %q, %v", payload, version, v, again, err)
		}
	})
}

func TestMakingAnEventAllocatesLittle(t *testing.T) {
	typed := addressAdded()
	typed.Version, typed.Upcasters = 1, nil
	v := address{First: "Ada", Last: "Lovelace", Email: "ada@example.org"}
	boxed := testing.AllocsPerRun(100, func() { _, _ = json.Marshal(v) })
	if n := testing.AllocsPerRun(100, func() { _, _ = typed.Event("42", 1, v) }); n > boxed {
		t.Errorf("Event allocates %v times, want no more than encoding/json alone, %v", n, boxed)
	}
	var r outbox.Registry
	if err := outbox.Register(&r, typed); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = outbox.EventOf(&r, "42", 1, v) }); n > boxed {
		t.Errorf("EventOf allocates %v times, want no more than encoding/json alone, %v", n, boxed)
	}
}

func BenchmarkEventOf(b *testing.B) {
	typed := addressAdded()
	typed.Version, typed.Upcasters = 1, nil
	var r outbox.Registry
	if err := outbox.Register(&r, typed); err != nil {
		b.Fatal(err)
	}
	v := address{First: "Ada", Last: "Lovelace", Email: "ada@example.org"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := outbox.EventOf(&r, "42", 1, v); err != nil {
			b.Fatal(err)
		}
	}
}
