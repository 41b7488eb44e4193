package outbox

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrUnknownType is wrapped by the error of [Registry.Decode] for a name that
// is not registered: readers may pass over such events.
var ErrUnknownType = errors.New("unknown event type")

// A Registry knows the event types of one program: by their Go type for
// writing, by their name for reading. The zero Registry is empty and ready to
// use; it belongs to who made it. Register all types first: from then on it is
// safe for use by several goroutines.
type Registry struct {
	byType map[any]any // (*T)(nil) to Typed[T]
	byName map[string]entry
}

type entry struct {
	topic  string
	goType string
	decode func(schemaVersion int, payload []byte) (any, error)
}

// Register adds t to r. It refuses what [Typed.Validate] does, a name and a Go
// type that r already has, telling all problems together; r is then as it was.
func Register[T any](r *Registry, t Typed[T]) error {
	err := t.Validate()
	if other, ok := r.byName[t.Name]; ok {
		err = errors.Join(err, fmt.Errorf("the name is %s's already: name the new type otherwise", other.goType))
	}
	if other, ok := TypedOf[T](r); ok {
		err = errors.Join(err, fmt.Errorf("%s is %s already: one Go type is one event type", typeName[T](), other.Name))
	}
	if err != nil {
		return fmt.Errorf("register event type %q: %w", t.Name, err)
	}
	if r.byType == nil {
		r.byType, r.byName = make(map[any]any), make(map[string]entry)
	}
	r.byType[(*T)(nil)] = t
	r.byName[t.Name] = entry{
		topic: t.Topic, goType: typeName[T](),
		decode: func(schemaVersion int, payload []byte) (any, error) { return t.Decode(schemaVersion, payload) },
	}
	return nil
}

// TypedOf gives the event type that T is registered as.
func TypedOf[T any](r *Registry) (t Typed[T], ok bool) {
	t, ok = r.byType[(*T)(nil)].(Typed[T])
	return t, ok
}

// EventOf makes the event that v happened, as [Typed.Event] of the type that T
// is registered as does.
func EventOf[T any](r *Registry, aggregateID string, aggregateVersion int64, v T) (Event, error) {
	t, ok := TypedOf[T](r)
	if !ok {
		return Event{}, fmt.Errorf("%s is no event type registered here: outbox.Register it", typeName[T]())
	}
	return t.Event(aggregateID, aggregateVersion, v)
}

// Decode reads a payload of the type with that name, as [Typed.Decode] does,
// and gives a value of its Go type. A name that is not registered gives an
// error that wraps [ErrUnknownType].
func (r *Registry) Decode(name string, schemaVersion int, payload []byte) (any, error) {
	e, ok := r.byName[name]
	if !ok {
		return nil, fmt.Errorf("%w %q of schema version %d: outbox.Register it, or pass the event over", ErrUnknownType, name, max(schemaVersion, 1))
	}
	return e.decode(schemaVersion, payload)
}

// Types gives the names of all types in alphabetical order.
func (r *Registry) Types() []string { return slices.Sorted(maps.Keys(r.byName)) }

// Topics gives the topics of all types in alphabetical order, each once: those
// that must be there before the first event is published.
func (r *Registry) Topics() []string {
	topics := make([]string, 0, len(r.byName))
	for _, e := range r.byName {
		topics = append(topics, e.topic)
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}
