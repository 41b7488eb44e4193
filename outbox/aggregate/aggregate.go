// Package aggregate keeps an aggregate's state and its events together: what
// is recorded is applied to the state, and one statement saves the state's row
// at the version expected together with the events.
//
//	account := accounts.Load(id, version, state)
//	if err := aggregate.Record(account, Deposited{Cents: 500}); err != nil {
//		return err
//	}
//	return account.Save(ctx, pool, `update accounts set cents = $2, version = $3 where id = $1 and version = $4`,
//		account.ID(), account.State().Cents, account.Version(), account.Expected())
//
// State is read from its row; replaying the events gives the same state, from
// the first one or from a [Snapshot]. Test commands with package
// aggregatetest.
package aggregate

import (
	"errors"
	"fmt"

	"github.com/seed-048de892/walpost/outbox"
)

// Config configures a [Definition].
type Config[S any] struct {
	// Type is the aggregate type of all events: "account". Required.
	Type string

	// Events are all types of events that an aggregate of this type ever had,
	// each made by [On]. Required.
	Events []EventType[S]

	// Writer writes the events. The zero Writer is good.
	Writer outbox.Writer

	// SnapshotCodec encodes S for snapshots. Defaults to [outbox.JSON].
	SnapshotCodec outbox.Codec[S]

	// SnapshotVersion is the version of S as a schema, from 1: raise it with a
	// change of S that makes older snapshots unreadable, or after which they
	// would lack something. Defaults to 1.
	SnapshotVersion int

	// SnapshotUpcasters make of a snapshot's state of version n, their key, one
	// of version n+1. Where one is missing an older snapshot is refused; replay
	// all events then.
	SnapshotUpcasters map[int]func(state []byte) ([]byte, error)
}

// A Definition says what an aggregate type is: its state S and its events. It
// is safe for use by several goroutines.
type Definition[S any] struct {
	name     string
	writer   outbox.Writer
	events   []eventType[S]
	byType   map[any]eventType[S] // by key
	byName   map[string]eventType[S]
	snapshot outbox.Typed[S] // its codec, version and upcasters only
}

// New makes a Definition. It reports all problems of cfg together.
func New[S any](cfg Config[S]) (*Definition[S], error) {
	d := &Definition[S]{
		name: cfg.Type, writer: cfg.Writer,
		byType: make(map[any]eventType[S]), byName: make(map[string]eventType[S]),
		snapshot: outbox.Typed[S]{
			Name: "snapshot of " + cfg.Type, Topic: "none", AggregateType: cfg.Type,
			Codec: cfg.SnapshotCodec, Version: cfg.SnapshotVersion, Upcasters: cfg.SnapshotUpcasters,
		},
	}
	var problems []error
	if err := d.snapshot.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("Config.Type or Config.Snapshot…: %w", err))
	}
	if len(cfg.Events) == 0 {
		problems = append(problems, errors.New("Config.Events is empty: list every event type, made by aggregate.On"))
	}
	for i, listed := range cfg.Events {
		if listed.eventType == nil {
			problems = append(problems, fmt.Errorf("Config.Events[%d] is empty: make it by aggregate.On", i))
			continue
		}
		e, err := listed.of(cfg.Type)
		if err != nil {
			problems = append(problems, fmt.Errorf("Config.Events[%d]: %w", i, err))
		}
		if d.byName[e.name()] != nil {
			problems = append(problems, fmt.Errorf("Config.Events[%d]: the name %q is another's already", i, e.name()))
		}
		if other := d.byType[e.key()]; other != nil {
			problems = append(problems, fmt.Errorf("Config.Events[%d]: %T is %s already: one Go type is one event type", i, e.key(), other.name()))
		}
		d.events, d.byType[e.key()], d.byName[e.name()] = append(d.events, e), e, e
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("define aggregate %q: %w", cfg.Type, err)
	}
	return d, nil
}

// Register adds the event types to a registry, which then reads them and knows
// their topics. The error tells what [outbox.Register] refused.
func (d *Definition[S]) Register(r *outbox.Registry) error {
	var errs []error
	for _, e := range d.events {
		errs = append(errs, e.register(r))
	}
	return errors.Join(errs...)
}

// An EventType is one type of event of aggregates with the state S.
type EventType[S any] struct{ eventType[S] }

// On makes an EventType of t: apply brings the state from before the event to
// that after it. An event that has happened can't be refused any more, so
// apply does not fail; it must give the same for the same event always, and
// must not keep what event points to if that is changed later. An empty
// AggregateType of t becomes that of the definition.
func On[S, E any](t outbox.Typed[E], apply func(state *S, event E)) EventType[S] {
	return EventType[S]{&on[S, E]{typed: t, apply: apply}}
}

// eventType is [on] without its E.
type eventType[S any] interface {
	of(aggregateType string) (eventType[S], error)
	name() string
	key() any // a nil *E: what E is, comparable and without reflection
	register(r *outbox.Registry) error
	replay(state *S, schemaVersion int, payload []byte) error
	recordAny(r *Root[S], event any) (mine bool, err error)
}

type on[S, E any] struct {
	typed outbox.Typed[E]
	apply func(*S, E)
}

// of gives a copy for that type of aggregate, and what is wrong with it.
func (o *on[S, E]) of(aggregateType string) (eventType[S], error) {
	o = &on[S, E]{typed: o.typed, apply: o.apply}
	if o.typed.AggregateType == "" {
		o.typed.AggregateType = aggregateType
	}
	err := o.typed.Validate()
	if o.typed.AggregateType != aggregateType {
		err = errors.Join(err, fmt.Errorf("%s is an event of %q: leave AggregateType empty", o.typed.Name, o.typed.AggregateType))
	}
	if o.apply == nil {
		err = errors.Join(err, fmt.Errorf("%s has no function that applies it; one that does nothing is fine", o.typed.Name))
	}
	return o, err
}

func (o *on[S, E]) name() string { return o.typed.Name }

func (*on[S, E]) key() any { return (*E)(nil) }

func (o *on[S, E]) register(r *outbox.Registry) error { return outbox.Register(r, o.typed) }

func (o *on[S, E]) replay(state *S, schemaVersion int, payload []byte) error {
	event, err := o.typed.Decode(schemaVersion, payload)
	if err == nil {
		o.apply(state, event)
	}
	return err
}

func (o *on[S, E]) recordAny(r *Root[S], event any) (mine bool, err error) {
	e, mine := event.(E)
	if mine {
		err = o.record(r, e)
	}
	return mine, err
}

// record encodes before it applies: what can't be encoded has not happened.
func (o *on[S, E]) record(r *Root[S], event E) error {
	e, err := o.typed.Event(r.id, r.version+1, event)
	if err != nil {
		return fmt.Errorf("record event %d of %s %s: %w", r.version+1, r.def.name, r.id, err)
	}
	o.apply(&r.state, event)
	r.pending = append(r.pending, e)
	r.version++
	return nil
}
