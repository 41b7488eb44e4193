package outbox_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/outbox"
)

type moved struct {
	To string `json:"to"`
}

func registry(t *testing.T) *outbox.Registry {
	t.Helper()
	var r outbox.Registry
	err := errors.Join(
		outbox.Register(&r, addressAdded()),
		outbox.Register(&r, outbox.Typed[moved]{Name: "AddressMoved", Topic: "address.changed", AggregateType: "address"}),
		outbox.Register(&r, outbox.Typed[int]{Name: "AddressCounted", Topic: "address.changed", AggregateType: "address"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

func TestRegistryWritesByGoTypeAndReadsByName(t *testing.T) {
	t.Parallel()
	r := registry(t)
	e, err := outbox.EventOf(r, "42", 3, moved{To: "London"})
	if err != nil || e.Type != "AddressMoved" || e.Topic != "address.changed" || e.AggregateVersion != 3 {
		t.Fatalf("EventOf = %+v, %v", e, err)
	}
	got, err := r.Decode(e.Type, 1, e.Payload)
	if err != nil || got != any(moved{To: "London"}) {
		t.Errorf("Decode = %#v, %v", got, err)
	}
	got, err = r.Decode("AddressAdded", 1, []byte(`{"name":"Ada Lovelace"}`))
	if want := any(address{"Ada", "Lovelace", "unknown@example.org"}); err != nil || got != want {
		t.Errorf("Decode of version 1 = %#v, %v, want %#v", got, err, want)
	}
	if typed, ok := outbox.TypedOf[address](r); !ok || typed.Name != "AddressAdded" {
		t.Errorf("TypedOf = %q, %t", typed.Name, ok)
	}
}

func TestWhatIsNotRegistered(t *testing.T) {
	t.Parallel()
	r := registry(t)
	for _, r := range []*outbox.Registry{r, new(outbox.Registry)} {
		if _, err := outbox.EventOf(r, "1", 1, &moved{}); err == nil || !strings.Contains(err.Error(), "*outbox_test.moved") {
			t.Errorf("EventOf of a pointer = %v, want an error that names it", err)
		}
		_, err := r.Decode("AddressLost", 2, nil)
		if !errors.Is(err, outbox.ErrUnknownType) || !strings.Contains(err.Error(), `"AddressLost" of schema version 2`) {
			t.Errorf("Decode of an unknown type = %v", err)
		}
	}
	var newer *outbox.SchemaError
	if _, err := r.Decode("AddressMoved", 2, nil); !errors.As(err, &newer) || newer.Known != 1 {
		t.Errorf("Decode of a newer version = %v, want a SchemaError", err)
	}
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	r := registry(t)
	err := outbox.Register(r, outbox.Typed[moved]{Name: "AddressAdded", AggregateType: "address"})
	for _, want := range []string{`"AddressAdded"`, "outbox_test.address's already", "outbox_test.moved is AddressMoved already", ".Topic"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not tell %q:\n%v", want, err)
		}
	}
	if typed, _ := outbox.TypedOf[address](r); typed.Topic != "address.added" {
		t.Errorf("a refused type took the place of %+v", typed)
	}
}

func TestRegistryTellsWhatItKnows(t *testing.T) {
	t.Parallel()
	r := registry(t)
	if diff := cmp.Diff([]string{"AddressAdded", "AddressCounted", "AddressMoved"}, r.Types()); diff != "" {
		t.Errorf("types, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"address.added", "address.changed"}, r.Topics()); diff != "" {
		t.Errorf("topics, -want +got:\n%s", diff)
	}
	if empty := new(outbox.Registry); len(empty.Types())+len(empty.Topics()) != 0 {
		t.Errorf("an empty registry knows %v, %v", empty.Types(), empty.Topics())
	}
}
