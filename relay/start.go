package relay

import (
	"fmt"

	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A beginning says how a session starts.
type beginning struct {
	position position.Position // to go on from; for a new slot without its start
	create   bool              // make the slot
	drop     bool              // remove the one that is there before
	fresh    bool              // the source's first slot: rows must not be there yet
}

// begin compares what is stored with what PostgreSQL has, and decides. stored
// is nil where the source has no position yet.
//
// The slot is never ahead of the stored position, since positions are stored
// before they are confirmed. So a slot that is ahead, or missing, or another
// one, means that events may have gone by unpublished: that is refused, unless
// the operator has said to go on.
func begin(stored *position.Position, state slot.State, names slot.Names, lost LostSlot) (beginning, error) {
	created := position.Position{SystemID: state.SystemID, Slot: names.Slot, Generation: 1, Creating: true}
	if stored == nil {
		if !state.Exists {
			return beginning{position: created, create: true, fresh: true}, nil
		}
		if lost == ContinueOnLoss {
			return beginning{position: created, create: true, drop: true}, nil
		}
		return beginning{}, &GapError{
			What: fmt.Sprintf("slot %s exists, but Kafka holds no position for this source: which of its events were published is unknown", names.Slot),
			Hint: fmt.Sprintf("if --source or --positions-topic has changed, change it back; if nothing was ever published, run: select pg_drop_replication_slot('%s')", names.Slot),
		}
	}
	if stored.Creating && stored.SystemID == state.SystemID && stored.Slot == names.Slot {
		// A start was cut off between making the slot and storing where it
		// begins. Nothing has been published from it.
		created.Generation, created.Sequence = stored.Generation, stored.Sequence
		return beginning{position: created, create: true, drop: state.Exists, fresh: stored.Sequence == 0}, nil
	}
	what := loss(stored, state, names)
	if what == "" {
		return beginning{position: *stored}, nil
	}
	if lost != ContinueOnLoss {
		return beginning{}, &GapError{
			What: what,
			Hint: "what retention has kept in the table is published by: relay recover; to go on without what is not yet published, start once with --lost-slot=continue",
		}
	}
	created.Generation, created.Sequence = stored.Generation+1, stored.Sequence
	return beginning{position: created, create: true, drop: state.Exists}, nil
}

// loss says why events may be missing behind stored; empty: none are.
func loss(stored *position.Position, state slot.State, names slot.Names) string {
	switch {
	case stored.SystemID != state.SystemID:
		return fmt.Sprintf("the stored position %v is of PostgreSQL cluster %s, this is cluster %s", stored.End, stored.SystemID, state.SystemID)
	case stored.Slot != names.Slot:
		return fmt.Sprintf("the stored position %v is of slot %s, this relay is set to slot %s", stored.End, stored.Slot, names.Slot)
	case !state.Exists:
		return fmt.Sprintf("slot %s is gone, Kafka holds its events up to %v", names.Slot, stored.End)
	case state.Invalidation != "":
		return fmt.Sprintf("slot %s is lost, Kafka holds its events up to %v: %s", names.Slot, stored.End, state.Invalidation)
	case state.Confirmed > stored.End:
		return fmt.Sprintf("slot %s is at %v, Kafka holds its events only up to %v", names.Slot, state.Confirmed, stored.End)
	}
	return ""
}
