package relay

import (
	"testing"

	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

func TestBegin(t *testing.T) {
	t.Parallel()
	names := slot.Names{Slot: "s"}
	stored := position.Position{SystemID: "1", Slot: "s", Generation: 2, End: 100, Sequence: 7}
	creating := position.Position{SystemID: "1", Slot: "s", Generation: 1, Creating: true}
	here := slot.State{SystemID: "1", Exists: true, Confirmed: 100}
	with := func(change func(*slot.State)) slot.State { s := here; change(&s); return s }
	tests := map[string]struct {
		stored *position.Position
		state  slot.State
		lost   LostSlot

		gap          bool
		create, drop bool
		fresh        bool
		generation   int64
		sequence     int64
	}{
		"first start":                       {state: slot.State{SystemID: "1"}, create: true, fresh: true, generation: 1},
		"as it was left":                    {stored: &stored, state: here, generation: 2, sequence: 7},
		"slot behind, after a server crash": {stored: &stored, state: with(func(s *slot.State) { s.Confirmed = 50 }), generation: 2, sequence: 7},
		"slot ahead":                        {stored: &stored, state: with(func(s *slot.State) { s.Confirmed = 101 }), gap: true},
		"slot gone":                         {stored: &stored, state: with(func(s *slot.State) { s.Exists = false }), gap: true},
		"slot invalidated":                  {stored: &stored, state: with(func(s *slot.State) { s.Invalidation = "lost" }), gap: true},
		"another cluster":                   {stored: &stored, state: with(func(s *slot.State) { s.SystemID = "2" }), gap: true},
		"another slot":                      {stored: &position.Position{SystemID: "1", Slot: "t", Generation: 1, End: 100}, state: here, gap: true},
		"slot without a position":           {state: here, gap: true},
		"slot gone, told to go on":          {stored: &stored, state: slot.State{SystemID: "1"}, lost: ContinueOnLoss, create: true, generation: 3, sequence: 7},
		"slot invalidated, told to go on":   {stored: &stored, state: with(func(s *slot.State) { s.Invalidation = "lost" }), lost: ContinueOnLoss, create: true, drop: true, generation: 3, sequence: 7},
		"cut off before the slot was made":  {stored: &creating, state: slot.State{SystemID: "1"}, create: true, fresh: true, generation: 1},
		"cut off after the slot was made":   {stored: &creating, state: here, create: true, drop: true, fresh: true, generation: 1},
		"nothing lost, told to go on":       {stored: &stored, state: here, lost: ContinueOnLoss, generation: 2, sequence: 7},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := begin(tt.stored, tt.state, names, tt.lost)
			if isGap := isA[*GapError](err); isGap != tt.gap {
				t.Fatalf("begin: %v, want a gap: %t", err, tt.gap)
			}
			if tt.gap {
				return
			}
			if got.create != tt.create || got.drop != tt.drop || got.fresh != tt.fresh ||
				got.position.Generation != tt.generation || got.position.Sequence != tt.sequence {
				t.Errorf("begin = %+v", got)
			}
		})
	}
}
