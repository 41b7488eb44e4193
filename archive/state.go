package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/archive/mergepatch"
)

// A Fold applies one event to an aggregate's state and gives the new state,
// both JSON. The state before the first event is nil. It must not keep or
// change what it is given.
type Fold func(state json.RawMessage, e *Event) (json.RawMessage, error)

// Folds are the folds of aggregate types. A type that is not named is folded
// by JSON Merge Patch (RFC 7396) of the payloads; there a payload that is not
// JSON counts as an event but changes nothing.
type Folds map[string]Fold

// A State is what an aggregate's events come to.
type State struct {
	AggregateType string `json:"aggregateType"`
	AggregateID   string `json:"aggregateId"`

	// Version is that of the last event. EventCount is how many there are: a
	// count below the version says that events are missing or were never
	// archived.
	Version    int64 `json:"version"`
	EventCount int64 `json:"eventCount"`

	LastEventID   string          `json:"lastEventId"`
	LastEventType string          `json:"lastEventType"`
	UpdatedAt     time.Time       `json:"updatedAt"`
	State         json.RawMessage `json:"state"`
}

// An Until ends a fold early. The zero Until takes every event.
type Until struct {
	Version int64     // the last version taken; 0 means all
	At      time.Time // the fold ends before the first event later than this
}

// State folds the aggregate's events in the order of their versions. Events
// archived meanwhile may or may not be taken in. Without any it gives an
// [ErrNotFound].
func (s *Store) State(ctx context.Context, aggregateType, id string, until Until) (State, error) {
	folder := s.folder(aggregateType)
	st := State{AggregateType: aggregateType, AggregateID: id}
	err := s.each(ctx, aggregateType, id, 1, 0, func(e *Event) (bool, error) {
		if until.Version != 0 && e.Version > until.Version || !until.At.IsZero() && e.Time.After(until.At) {
			return false, nil
		}
		if err := folder.apply(e); err != nil {
			return false, fmt.Errorf("fold %s version %d of %s/%s: %w", e.Type, e.Version, aggregateType, id, err)
		}
		st.Version, st.LastEventID, st.LastEventType, st.UpdatedAt = e.Version, e.ID, e.Type, e.Time
		st.EventCount++
		return true, nil
	})
	if err != nil {
		return State{}, err
	}
	if st.EventCount == 0 {
		return State{}, fmt.Errorf("state of %s/%s: %w", aggregateType, id, ErrNotFound)
	}
	if st.State, err = folder.state(); err != nil {
		return State{}, fmt.Errorf("state of %s/%s: %w", aggregateType, id, err)
	}
	return st, nil
}

// A folder folds one aggregate's events.
type folder interface {
	apply(*Event) error
	state() (json.RawMessage, error)
}

func (s *Store) folder(aggregateType string) folder {
	if fold := s.folds[aggregateType]; fold != nil {
		return &customFolder{fold: fold}
	}
	return new(mergeFolder)
}

type customFolder struct {
	fold    Fold
	current json.RawMessage
}

func (f *customFolder) apply(e *Event) (err error) {
	f.current, err = f.fold(f.current, e)
	return err
}

func (f *customFolder) state() (json.RawMessage, error) { return f.current, nil }

// mergeFolder keeps the state decoded between events.
type mergeFolder struct{ document mergepatch.Document }

func (f *mergeFolder) apply(e *Event) error {
	if json.Valid(e.Payload) {
		return f.document.Apply(e.Payload)
	}
	return nil
}

func (f *mergeFolder) state() (json.RawMessage, error) { return f.document.MarshalJSON() }
