package outbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"

	"github.com/seed-048de892/walpost/outbox"
)

// Opened is an event of a program's own. Its first version told whole euros.
type Opened struct {
	Owner string `json:"owner"`
	Cents int64  `json:"cents"`
}

func opened() outbox.Typed[Opened] {
	return outbox.Typed[Opened]{
		Name: "AccountOpened", Topic: "account.opened", AggregateType: "account", Version: 2,
		Upcasters: map[int]func([]byte) ([]byte, error){1: eurosToCents},
	}
}

func eurosToCents(payload []byte) ([]byte, error) {
	var old struct {
		Owner string
		Euros int64
	}
	if err := json.Unmarshal(payload, &old); err != nil {
		return nil, err
	}
	return json.Marshal(Opened{Owner: old.Owner, Cents: 100 * old.Euros})
}

func ExampleTyped() {
	event, err := opened().Event("42", 1, Opened{Owner: "Ada", Cents: 500})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(event.Topic, event.Type, event.Headers, string(event.Payload))
	// Output: account.opened AccountOpened map[schemaVersion:2] {"owner":"Ada","cents":500}
}

// Payloads of older versions are brought to the current one.
func ExampleTyped_Decode() {
	v, err := opened().Decode(1, []byte(`{"owner":"Ada","euros":5}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", v)

	_, err = opened().Decode(3, []byte(`{}`))
	var newer *outbox.SchemaError
	fmt.Println(errors.As(err, &newer), newer.Version, newer.Known)
	// Output:
	// {Owner:Ada Cents:500}
	// true 3 2
}

// A program registers its event types once: then the Go type decides what is
// written, and the name what is read.
func ExampleRegistry() {
	var types outbox.Registry
	if err := outbox.Register(&types, opened()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(types.Topics())

	event, err := outbox.EventOf(&types, "42", 1, Opened{Owner: "Ada", Cents: 500})
	if err != nil {
		log.Fatal(err)
	}
	v, err := types.Decode(event.Type, 2, event.Payload)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %+v\n", event.Type, v.(Opened))
	// Output:
	// [account.opened]
	// AccountOpened {Owner:Ada Cents:500}
}
