package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// HeaderSchemaVersion is the header that tells which version of its type's
// schema a payload has, a whole number; 1 where it is missing.
const HeaderSchemaVersion = "schemaVersion"

// A Typed says how values of the Go type T travel as events of one type. It
// holds no state: copy it and share it between goroutines freely.
type Typed[T any] struct {
	Name          string // [Event.Type]: "UserCreated"
	Topic         string // the Kafka topic of these events
	AggregateType string // what they are about: "user"

	// Version is the version of T as a schema, from 1. Raise it with a change
	// that readers of the version before cannot read, and give them an
	// upcaster. Versions over 1 are written as [HeaderSchemaVersion]. Defaults
	// to 1.
	Version int

	// Codec encodes T. Defaults to [JSON].
	Codec Codec[T]

	// Upcasters make of a payload of version n, their key, one of version n+1.
	// They must leave the payload they are given unchanged. Those from the
	// oldest version still to be read must be there.
	Upcasters map[int]func(payload []byte) ([]byte, error)

	// Check looks at each payload when its event is made, as a JSON Schema
	// does; an error refuses the event. Nil accepts all.
	Check func(payload []byte) error
}

// A Codec turns values into payloads and back. It must be safe for use by
// several goroutines.
type Codec[T any] interface {
	// ContentType is the media type of the payloads.
	ContentType() string

	// Append appends the payload of v to dst and returns the longer slice,
	// which may be a new one.
	Append(dst []byte, v T) ([]byte, error)

	// Decode reads what Append wrote into v, the zero T. It must not keep
	// data.
	Decode(data []byte, v *T) error
}

// JSON is the [Codec] of package encoding/json. Members that T does not have
// are passed over, so that a writer may add some.
type JSON[T any] struct{}

// ContentType is application/json.
func (JSON[T]) ContentType() string { return contentTypeJSON }

// Append appends v in JSON.
func (JSON[T]) Append(dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	if dst == nil || err != nil {
		return b, err
	}
	return append(dst, b...), nil
}

// Decode reads JSON.
func (JSON[T]) Decode(data []byte, v *T) error { return json.Unmarshal(data, v) }

// contentTypeJSON is what a payload without [HeaderContentType] is.
const contentTypeJSON = "application/json"

// Event makes the event that v happened to the aggregate with that id and
// brought it to that version, 0 where it has no versions. The error is that of
// the codec or of Check.
func (t Typed[T]) Event(aggregateID string, aggregateVersion int64, v T) (Event, error) {
	payload, err := t.codec().Append(nil, v)
	if err != nil {
		return Event{}, fmt.Errorf("encode %s: %w", t.Name, err)
	}
	if t.Check != nil {
		if err := t.Check(payload); err != nil {
			return Event{}, fmt.Errorf("check payload of %s: %w", t.Name, err)
		}
	}
	return Event{
		Topic: t.Topic, AggregateType: t.AggregateType, AggregateID: aggregateID, AggregateVersion: aggregateVersion,
		Type: t.Name, Payload: payload, Headers: t.headers(),
	}, nil
}

// headers gives each event a map of its own, since its owner may add to it.
func (t *Typed[T]) headers() map[string]string {
	contentType := t.codec().ContentType()
	if t.version() == 1 && contentType == contentTypeJSON {
		return nil
	}
	headers := make(map[string]string, 2)
	if version := t.version(); version > 1 {
		headers[HeaderSchemaVersion] = strconv.Itoa(version)
	}
	if contentType != contentTypeJSON {
		headers[HeaderContentType] = contentType
	}
	return headers
}

// Decode reads a payload of that schema version, which it first brings to the
// current one. 0 means 1, as a missing [HeaderSchemaVersion] does. A version
// that it has no way from gives a [*SchemaError].
func (t Typed[T]) Decode(schemaVersion int, payload []byte) (T, error) {
	var v T
	payload, err := t.upcast(max(schemaVersion, 1), payload)
	if err != nil {
		return v, err
	}
	if err := t.codec().Decode(payload, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("decode %s of schema version %d: %w", t.Name, max(schemaVersion, 1), err)
	}
	return v, nil
}

func (t *Typed[T]) upcast(from int, payload []byte) ([]byte, error) {
	known := t.version()
	if from > known {
		return nil, &SchemaError{Name: t.Name, Version: from, Known: known}
	}
	// Before any is called: a way that ends half-way is none.
	for n := from; n < known; n++ {
		if t.Upcasters[n] == nil {
			return nil, &SchemaError{Name: t.Name, Version: from, Known: known, Missing: n}
		}
	}
	for n := from; n < known; n++ {
		next, err := t.Upcasters[n](payload)
		if err != nil {
			return nil, fmt.Errorf("bring %s from schema version %d to %d: %w", t.Name, n, n+1, err)
		}
		payload = next
	}
	return payload, nil
}

// Validate tells all that is wrong with t itself, before its first event.
func (t Typed[T]) Validate() error {
	var problems []error
	refuse := func(field, value, hint string) {
		problems = append(problems, fmt.Errorf("Typed[%s].%s %q: %s", typeName[T](), field, value, hint))
	}
	e := Event{Topic: t.Topic, AggregateType: t.AggregateType, AggregateID: "1", Type: t.Name}
	e.check(nil, DefaultMaxBytes, func(field, value, hint string) {
		if field == "Type" {
			field = "Name"
		}
		refuse(field, value, hint)
	})
	if t.Version < 0 {
		refuse("Version", strconv.Itoa(t.Version), "count schema versions from 1")
	}
	for n, upcaster := range t.Upcasters {
		field := "Upcasters[" + strconv.Itoa(n) + "]"
		switch {
		case upcaster == nil:
			refuse(field, "nil", "give a function or leave it out")
		case n < 1 || n >= t.version():
			refuse(field, strconv.Itoa(n), fmt.Sprintf("never called at Version %d: raise Version, or leave it out", t.version()))
		}
	}
	return errors.Join(problems...)
}

func (t *Typed[T]) version() int { return max(t.Version, 1) }

func (t *Typed[T]) codec() Codec[T] {
	if t.Codec == nil {
		return JSON[T]{}
	}
	return t.Codec
}

func typeName[T any]() string { return strings.TrimPrefix(fmt.Sprintf("%T", (*T)(nil)), "*") }

// A SchemaError says that a payload has a schema version that can't be read.
type SchemaError struct {
	Name    string // the type's
	Version int    // the payload's
	Known   int    // the newest known here, which is written
	Missing int    // the version from which there is no upcaster; 0: Version is newer than Known
}

func (e *SchemaError) Error() string {
	if e.Missing == 0 {
		return fmt.Sprintf("%s has schema version %d, and %d is the newest known here: deploy this reader with the newer type before the writers",
			e.Name, e.Version, e.Known)
	}
	return fmt.Sprintf("%s of schema version %d can't be brought to %d: no upcaster from %d to %d: add Typed.Upcasters[%[4]d]",
		e.Name, e.Version, e.Known, e.Missing, e.Missing+1)
}

// ParseSchemaVersion reads the value of [HeaderSchemaVersion]; empty, as where
// the header is missing, is 1.
func ParseSchemaVersion(value string) (int, error) {
	if value == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || strconv.Itoa(n) != value {
		return 0, fmt.Errorf("header %s %q: want a whole number from 1", HeaderSchemaVersion, value)
	}
	return n, nil
}
