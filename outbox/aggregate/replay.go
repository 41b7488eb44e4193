package aggregate

import (
	"fmt"
	"iter"

	"github.com/seed-048de892/walpost/outbox"
)

// A Past is an event that has happened, as it is replayed. Of a decoded record
// of Kafka, and of an event of the archive, it is:
//
//	aggregate.Past{Version: e.AggregateVersion, Type: e.Type, SchemaVersion: e.Get(outbox.HeaderSchemaVersion), Payload: e.Data}
type Past struct {
	Version       int64  // of the aggregate, after the event
	Type          string // "UserCreated"
	SchemaVersion string // value of [outbox.HeaderSchemaVersion]; empty where it is missing
	Payload       []byte
}

// PastOf gives the Past of an event of the outbox.
func PastOf(e *outbox.Event) Past {
	return Past{Version: e.AggregateVersion, Type: e.Type, SchemaVersion: e.Headers[outbox.HeaderSchemaVersion], Payload: e.Payload}
}

// A GapError says that an event is missing in a replay, or comes too early.
type GapError struct {
	AggregateType string
	AggregateID   string
	Version       int64 // the event's
	Want          int64 // the version of the event that comes next
}

func (e *GapError) Error() string {
	if e.Version < 1 {
		return fmt.Sprintf("replay %s %s: an event has version %d: only events that carry the aggregate's version can be replayed",
			e.AggregateType, e.AggregateID, e.Version)
	}
	return fmt.Sprintf("replay %s %s: event %d comes where event %d should: read all of them, in the order of their versions",
		e.AggregateType, e.AggregateID, e.Version, e.Want)
}

// Replay applies events in their order, which must be that of their versions
// without a gap, as far as they are newer than the root. It stops at the first
// error, which is that of the sequence, a [*GapError], one that wraps
// [outbox.ErrUnknownType] or a [*outbox.SchemaError], or the codec's; the root
// is then at the event before. A root with unsaved events is refused.
func (r *Root[S]) Replay(events iter.Seq2[Past, error]) error {
	for e, err := range events {
		if err != nil {
			return fmt.Errorf("replay %s %s behind event %d: %w", r.def.name, r.id, r.version, err)
		}
		if err := r.Apply(e); err != nil {
			return err
		}
	}
	return nil
}

// Apply is [Root.Replay] of one event.
func (r *Root[S]) Apply(e Past) error {
	if len(r.pending) > 0 {
		return fmt.Errorf("replay %s %s: it has %d unsaved events: save them, or load it again", r.def.name, r.id, len(r.pending))
	}
	if e.Version < 1 || e.Version > r.version+1 {
		return &GapError{AggregateType: r.def.name, AggregateID: r.id, Version: e.Version, Want: r.version + 1}
	}
	if e.Version <= r.version {
		return nil // the row or the snapshot has it already
	}
	err := r.apply(e)
	if err != nil {
		return fmt.Errorf("replay %s %s: event %d: %w", r.def.name, r.id, e.Version, err)
	}
	r.version = e.Version
	return nil
}

func (r *Root[S]) apply(e Past) error {
	known, ok := r.def.byName[e.Type]
	if !ok {
		return fmt.Errorf("%w %q: add it to Config.Events by aggregate.On", outbox.ErrUnknownType, e.Type)
	}
	schemaVersion, err := outbox.ParseSchemaVersion(e.SchemaVersion)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Type, err)
	}
	return known.replay(&r.state, schemaVersion, e.Payload)
}

// A Snapshot is an aggregate's state at one version: replay goes on behind it
// instead of from the first event. Keep it where you like, all fields of it.
type Snapshot struct {
	AggregateType string
	AggregateID   string
	Version       int64  // of the aggregate
	SchemaVersion int    // [Config.SnapshotVersion] of its time
	State         []byte // encoded by [Config.SnapshotCodec]
}

// Snapshot gives the state as it is saved; a root with unsaved events has none.
func (r *Root[S]) Snapshot() (Snapshot, error) {
	if len(r.pending) > 0 {
		return Snapshot{}, fmt.Errorf("take snapshot of %s %s: it has %d unsaved events: save them before", r.def.name, r.id, len(r.pending))
	}
	e, err := r.def.snapshot.Event(r.id, r.version, r.state)
	if err != nil {
		return Snapshot{}, fmt.Errorf("take snapshot of %s %s: %w", r.def.name, r.id, err)
	}
	return Snapshot{
		AggregateType: r.def.name, AggregateID: r.id, Version: r.version,
		SchemaVersion: max(r.def.snapshot.Version, 1), State: e.Payload,
	}, nil
}

// Restore gives the aggregate of a snapshot; replay what happened behind it. A
// snapshot whose schema version can't be read gives a [*outbox.SchemaError]:
// begin with [Definition.New] and replay all events then.
func (d *Definition[S]) Restore(s Snapshot) (*Root[S], error) {
	if s.AggregateType != d.name {
		return nil, fmt.Errorf("restore %s %s: the snapshot is one of a %q", d.name, s.AggregateID, s.AggregateType)
	}
	if s.Version < 0 || s.AggregateID == "" {
		return nil, fmt.Errorf("restore %s %q at version %d: the snapshot is not whole: keep all fields that Root.Snapshot gives",
			d.name, s.AggregateID, s.Version)
	}
	state, err := d.snapshot.Decode(s.SchemaVersion, s.State)
	if err != nil {
		return nil, fmt.Errorf("restore %s %s at version %d: %w", d.name, s.AggregateID, s.Version, err)
	}
	return d.Load(s.AggregateID, s.Version, state), nil
}
