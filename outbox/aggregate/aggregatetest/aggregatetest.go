// Package aggregatetest tests the commands of an aggregate: given what has
// happened, when a command runs, then these events are recorded.
//
//	aggregatetest.Given(t, accounts, Opened{Owner: "Ada"}, Deposited{Cents: 500}).
//		When(func(a *aggregate.Root[State]) error { return Withdraw(a, 200) }).
//		Then(Withdrawn{Cents: 200}).
//		ThenState(State{Owner: "Ada", Cents: 300})
//
// Nothing but the aggregate is needed: no database. The history is replayed
// from encoded events as in earnest, and after each command that succeeds the
// state is compared with what its events give when they are replayed, from the
// first one and from a snapshot.
package aggregatetest

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// A Scenario is a test whose command has not run yet.
type Scenario[S any] struct {
	t       testing.TB
	def     *aggregate.Definition[S]
	id      string
	events  []any
	checked bool // a Then was called
}

// Given begins a test of an aggregate to which events have happened. It has
// the id "1". A scenario without a Then fails, since it would test nothing.
func Given[S any](t testing.TB, def *aggregate.Definition[S], events ...any) *Scenario[S] {
	t.Helper()
	s := &Scenario[S]{t: t, def: def, id: "1", events: events}
	t.Cleanup(func() {
		if !s.checked && !t.Failed() {
			t.Errorf("Given of %T tests nothing: call When, and Then or ThenError behind it", def)
		}
	})
	return s
}

// ID gives the aggregate another id.
func (s *Scenario[S]) ID(id string) *Scenario[S] {
	s.id = id
	return s
}

// When runs a command on the aggregate.
func (s *Scenario[S]) When(command func(*aggregate.Root[S]) error) *Outcome[S] {
	s.t.Helper()
	root := s.replay(s.history())
	return &Outcome[S]{s: s, root: root, err: command(root)}
}

// history gives what has happened. Each call gives other memory: a root made
// of it shares no map with another one.
func (s *Scenario[S]) history() []outbox.Event {
	s.t.Helper()
	return s.encode(s.def.New(s.id), "Given", s.events)
}

// encode gives the events that recording values on root makes.
func (s *Scenario[S]) encode(root *aggregate.Root[S], where string, values []any) []outbox.Event {
	s.t.Helper()
	for _, v := range values {
		if err := root.RecordAny(v); err != nil {
			s.t.Fatalf("%s: %v", where, err)
		}
	}
	return root.Pending()
}

// replay gives the aggregate to which events have happened.
func (s *Scenario[S]) replay(events []outbox.Event) *aggregate.Root[S] {
	s.t.Helper()
	return s.apply(s.def.New(s.id), events)
}

func (s *Scenario[S]) apply(root *aggregate.Root[S], events []outbox.Event) *aggregate.Root[S] {
	s.t.Helper()
	for i := range events {
		if err := root.Apply(aggregate.PastOf(&events[i])); err != nil {
			s.t.Fatalf("an event can't be read again: %v", err)
		}
	}
	return root
}

// restore gives root as its snapshot keeps it.
func (s *Scenario[S]) restore(root *aggregate.Root[S]) *aggregate.Root[S] {
	s.t.Helper()
	snapshot, err := root.Snapshot()
	if err == nil {
		root, err = s.def.Restore(snapshot)
	}
	if err != nil {
		s.t.Fatalf("a snapshot can't be read again: %v", err)
	}
	return root
}

// An Outcome is what a command did.
type Outcome[S any] struct {
	s    *Scenario[S]
	root *aggregate.Root[S]
	err  error
}

// Then fails the test unless the command succeeded and recorded these events
// and no others. Events are compared as they are encoded.
func (o *Outcome[S]) Then(events ...any) *Outcome[S] {
	t := o.succeeded()
	t.Helper()
	want := o.s.encode(o.s.replay(o.s.history()), "Then", events)
	got := o.root.Pending()
	if !slices.EqualFunc(want, got, func(a, b outbox.Event) bool {
		return a.Type == b.Type && a.AggregateVersion == b.AggregateVersion && bytes.Equal(a.Payload, b.Payload)
	}) {
		t.Errorf("events of %s, - missing, + not wanted:\n%s", o.s.id, diff(eventLines(want), eventLines(got)))
	}
	return o
}

// ThenState fails the test unless the command succeeded and left that state.
// States are compared as snapshots encode them.
func (o *Outcome[S]) ThenState(want S) *Outcome[S] {
	t := o.succeeded()
	t.Helper()
	o.compare("state", want, o.root.State())
	return o
}

// ThenError fails the test unless the command failed with an error that is
// want, by errors.Is, and recorded nothing.
func (o *Outcome[S]) ThenError(want error) {
	t := o.s.t
	t.Helper()
	o.s.checked = true
	switch {
	case want == nil:
		t.Fatalf("ThenError(nil): use Then for a command that succeeds")
	case !errors.Is(o.err, want):
		t.Errorf("the command gives the error %v, want %v", o.err, want)
	}
	if got := o.root.Pending(); len(got) > 0 {
		t.Errorf("the command was to fail and has recorded:\n%s", diff(nil, eventLines(got)))
	}
}

// succeeded fails the test where the command has failed, or where its events
// do not give the state when they are replayed.
func (o *Outcome[S]) succeeded() testing.TB {
	t := o.s.t
	t.Helper()
	if o.err != nil {
		o.s.checked = true
		t.Fatalf("the command failed: %v", o.err)
	}
	if !o.s.checked {
		o.s.checked = true
		history, recorded := o.s.history(), o.root.Pending()
		byReplay := o.s.apply(o.s.replay(history), recorded)
		o.compare("state by replay and as it was kept (an event lacks what apply uses, or apply is not the same each time)",
			byReplay.State(), o.root.State())
		bySnapshot := o.s.apply(o.s.restore(o.s.replay(history)), recorded)
		o.compare("state by snapshot and as it was kept (the snapshot's codec leaves out something)",
			bySnapshot.State(), o.root.State())
	}
	return t
}

func (o *Outcome[S]) compare(what string, want, got S) {
	o.s.t.Helper()
	a, b := o.snapshot(want), o.snapshot(got)
	if !bytes.Equal(a, b) {
		o.s.t.Errorf("%s, - wanted, + got:\n%s", what, diff(lines(a), lines(b)))
	}
}

// snapshot gives state as a snapshot has it, which a root with unsaved events
// does not give.
func (o *Outcome[S]) snapshot(state S) []byte {
	o.s.t.Helper()
	snapshot, err := o.s.def.Load(o.s.id, o.root.Version(), state).Snapshot()
	if err != nil {
		o.s.t.Fatalf("encode state: %v", err)
	}
	return snapshot.State
}
