package aggregate

import (
	"fmt"
	"strings"

	"github.com/seed-048de892/walpost/outbox"
)

// A Root is one aggregate: its state and the events recorded but not saved.
// Make it by its [Definition]. It is for one goroutine.
type Root[S any] struct {
	def     *Definition[S]
	id      string
	version int64
	state   S
	pending []outbox.Event
}

// New gives an aggregate to which nothing has happened: version 0 and the zero
// state.
func (d *Definition[S]) New(id string) *Root[S] { return &Root[S]{def: d, id: id} }

// Load gives the aggregate whose row has that version and holds that state.
func (d *Definition[S]) Load(id string, version int64, state S) *Root[S] {
	return &Root[S]{def: d, id: id, version: version, state: state}
}

// Record says that event happened: it is encoded, applied to the state, and
// kept for Save, and the version is one higher. On an error, which is the
// codec's, that of Check, or that E is no event of this aggregate, nothing has
// changed. Business rules are the caller's to look at before.
func Record[S, E any](r *Root[S], event E) error {
	o, ok := r.def.byType[(*E)(nil)].(*on[S, E])
	if !ok {
		return r.RecordAny(event) // E may be an interface
	}
	return o.record(r, event)
}

// RecordAny is [Record] for an event whose type only the running program
// knows. It is slower.
func (r *Root[S]) RecordAny(event any) error {
	for _, e := range r.def.events {
		if mine, err := e.recordAny(r, event); mine {
			return err
		}
	}
	return r.foreign(event)
}

func (r *Root[S]) foreign(event any) error {
	known := make([]string, len(r.def.events))
	for i, e := range r.def.events {
		known[i] = strings.TrimPrefix(fmt.Sprintf("%T", e.key()), "*")
	}
	return fmt.Errorf("record event %d of %s %s: %T is no event of it: use one of %s, or add it to Config.Events by aggregate.On",
		r.version+1, r.def.name, r.id, event, strings.Join(known, ", "))
}

// ID is the aggregate's id.
func (r *Root[S]) ID() string { return r.id }

// Version counts all events of the aggregate, the unsaved ones too.
func (r *Root[S]) Version() int64 { return r.version }

// Expected is the version that the row must have for Save to go through: that
// before the first unsaved event, 0 where there is no row yet. Give it to Save
// and compare it there.
func (r *Root[S]) Expected() Expected { return Expected(r.version - int64(len(r.pending))) }

// Expected is the version of a row as [Root.Save] expects it. It is a bigint
// in PostgreSQL.
type Expected int64

// State is the state after all events, the unsaved ones too. It is a copy; what
// it points to belongs to the root.
func (r *Root[S]) State() S { return r.state }

// Pending are the unsaved events. The slice is the root's own: an event may be
// given an ID and further Headers there, nothing else.
func (r *Root[S]) Pending() []outbox.Event { return r.pending }
