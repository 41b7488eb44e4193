package aggregate_test

import (
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// seq gives events and then err, if there is one.
func seq(events []aggregate.Past, err error) iter.Seq2[aggregate.Past, error] {
	return func(yield func(aggregate.Past, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(aggregate.Past{}, err)
		}
	}
}

// The state by replay is the state that was kept.
func TestReplayGivesTheStateKept(t *testing.T) {
	t.Parallel()
	def := accounts(t)
	rapid.Check(t, func(t *rapid.T) {
		root := def.New("42")
		record(t, root, drawEvents(t)...)
		again := def.New("42")
		if err := again.Replay(seq(past(root), nil)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(root.State(), again.State()); diff != "" || again.Version() != root.Version() || len(again.Pending()) != 0 {
			t.Fatalf("version %d and %d pending by replay, version %d kept; state, -kept +replayed:\n%s", again.Version(), len(again.Pending()), root.Version(), diff)
		}
	})
}

// A snapshot and the events behind it give what all events give, wherever the
// snapshot was taken, and whether or not older events are given too.
func TestASnapshotAndTheRestGiveTheWhole(t *testing.T) {
	t.Parallel()
	def := accounts(t)
	rapid.Check(t, func(t *rapid.T) {
		whole := def.New("42")
		record(t, whole, drawEvents(t)...)
		all := past(whole)
		for cut := range len(all) + 1 {
			first := def.New("42")
			if err := first.Replay(seq(all[:cut], nil)); err != nil {
				t.Fatal(err)
			}
			snapshot, err := first.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			for name, rest := range map[string][]aggregate.Past{"rest": all[cut:], "all": all} {
				second, err := def.Restore(snapshot)
				if err == nil {
					err = second.Replay(seq(rest, nil))
				}
				if err != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if diff := cmp.Diff(whole.State(), second.State()); diff != "" || second.Version() != whole.Version() {
					t.Fatalf("cut at %d, %s: version %d, want %d; state, -whole +restored:\n%s", cut, name, second.Version(), whole.Version(), diff)
				}
			}
		}
	})
}

func TestReplayReadsOldSchemas(t *testing.T) {
	t.Parallel()
	root := accounts(t).New("42")
	err := root.Replay(seq([]aggregate.Past{
		{Version: 1, Type: "AccountOpened", Payload: []byte(`{"Owner":"Ada"}`)},
		{Version: 2, Type: "MoneyDeposited", Payload: []byte(`{"Euros":5}`)},
		{Version: 3, Type: "MoneyDeposited", SchemaVersion: "2", Payload: []byte(`{"Cents":5}`)},
	}, nil))
	if err != nil || root.State().Cents != 505 {
		t.Errorf("state %+v, %v, want 505 cents", root.State(), err)
	}
}

func TestReplayStopsBeforeWhatItCannotApply(t *testing.T) {
	t.Parallel()
	errSource := errors.New("connection lost")
	opening := aggregate.Past{Version: 1, Type: "AccountOpened", Payload: []byte(`{"Owner":"Ada"}`)}
	tests := map[string]struct {
		event aggregate.Past
		err   error // of the sequence
		as    any
		is    error
		text  string
	}{
		"gap":            {event: aggregate.Past{Version: 3, Type: "AccountClosed"}, as: new(*aggregate.GapError), text: "event 3 comes where event 2 should"},
		"no version":     {event: aggregate.Past{Type: "AccountClosed"}, as: new(*aggregate.GapError), text: "an event has version 0"},
		"unknown type":   {event: aggregate.Past{Version: 2, Type: "AccountLost"}, is: outbox.ErrUnknownType, text: `"AccountLost"`},
		"newer schema":   {event: aggregate.Past{Version: 2, Type: "AccountClosed", SchemaVersion: "2"}, as: new(*outbox.SchemaError), text: "schema version 2"},
		"no schema":      {event: aggregate.Past{Version: 2, Type: "AccountClosed", SchemaVersion: "two"}, text: `schemaVersion "two"`},
		"broken payload": {event: aggregate.Past{Version: 2, Type: "AccountClosed", Payload: []byte(`{`)}, text: "decode AccountClosed"},
		"source":         {err: errSource, is: errSource, text: "behind event 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := []aggregate.Past{opening, tt.event}
			if tt.err != nil {
				events = events[:1]
			}
			root := accounts(t).New("42")
			err := root.Replay(seq(events, tt.err))
			if err == nil || !strings.Contains(err.Error(), "account 42") || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("Replay = %v, want %q", err, tt.text)
			}
			if tt.is != nil && !errors.Is(err, tt.is) || tt.as != nil && !errors.As(err, tt.as) {
				t.Errorf("Replay = %v, want %v %T", err, tt.is, tt.as)
			}
			if root.Version() != 1 || root.State().Owner != "Ada" || root.State().Closed {
				t.Errorf("after the error: version %d, %+v", root.Version(), root.State())
			}
		})
	}
}

func TestUnsavedEventsAreNoPast(t *testing.T) {
	t.Parallel()
	root := accounts(t).New("42")
	record(t, root, opened{Owner: "Ada"})
	if _, err := root.Snapshot(); err == nil || !strings.Contains(err.Error(), "1 unsaved events") {
		t.Errorf("Snapshot = %v, want it refused", err)
	}
	if err := root.Apply(aggregate.Past{Version: 2, Type: "AccountClosed", Payload: []byte(`{}`)}); err == nil || !strings.Contains(err.Error(), "1 unsaved events") {
		t.Errorf("Apply = %v, want it refused", err)
	}
}

func TestSnapshotsOfOtherSchemas(t *testing.T) {
	t.Parallel()
	root, _ := kept(t, opened{Owner: "Ada"}, deposited{Cents: 5, Pocket: "main"})
	snapshot, err := root.Snapshot()
	if err != nil || snapshot.AggregateType != "account" || snapshot.AggregateID != "42" || snapshot.Version != 2 || snapshot.SchemaVersion != 1 {
		t.Fatalf("Snapshot = %+v, %v", snapshot, err)
	}
	cfg := config()
	cfg.SnapshotVersion = 2
	without, err := aggregate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var refused *outbox.SchemaError
	if _, err := without.Restore(snapshot); !errors.As(err, &refused) || refused.Missing != 1 {
		t.Errorf("Restore without an upcaster = %v, want a SchemaError", err)
	}
	cfg.SnapshotUpcasters = map[int]func([]byte) ([]byte, error){1: func(state []byte) ([]byte, error) {
		return []byte(strings.ReplaceAll(string(state), `"Ada"`, `"Ada L"`)), nil
	}}
	with, err := aggregate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, err := with.Restore(snapshot)
	if err != nil || again.State().Owner != "Ada L" || again.State().Cents != 5 || again.Version() != 2 {
		t.Errorf("Restore by an upcaster = %+v, %v", again, err)
	}
	newer, err := again.Snapshot()
	if err != nil || newer.SchemaVersion != 2 {
		t.Errorf("Snapshot = %+v, %v, want schema version 2", newer, err)
	}
	if _, err := root.Snapshot(); err != nil {
		t.Error(err)
	}
	refused = nil
	if _, err := accounts(t).Restore(newer); !errors.As(err, &refused) || refused.Known != 1 {
		t.Errorf("Restore of a newer one = %v, want a SchemaError", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	root, _ := kept(t, opened{Owner: "Ada"})
	good, err := root.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*aggregate.Snapshot){
		"another type":     func(s *aggregate.Snapshot) { s.AggregateType = "user" },
		"no id":            func(s *aggregate.Snapshot) { s.AggregateID = "" },
		"negative version": func(s *aggregate.Snapshot) { s.Version = -1 },
		"broken state":     func(s *aggregate.Snapshot) { s.State = s.State[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := good
			edit(&bad)
			if _, err := accounts(t).Restore(bad); err == nil || !strings.Contains(err.Error(), "restore account") {
				t.Errorf("Restore = %v, want an error", err)
			}
		})
	}
}
