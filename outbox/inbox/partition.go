package inbox

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A partition is one that is assigned to this member: its records in hand, and
// how far they are finished. The scheduler's lock guards it.
type partition struct {
	topic string
	id    int32

	// ctx is the handlers'; it ends when they must.
	ctx    context.Context
	cancel context.CancelCauseFunc

	pending []*item         // fetched, in the order of offsets, from the first that is not done
	next    kgo.EpochOffset // where the finished prefix ends: what is to be committed
	dirty   bool            // next is not committed yet
	end     int64           // the partition's, as of the last fetch
	paused  bool            // it is not fetched now

	working int           // items at work
	dropped bool          // it is not ours any more: nothing new begins
	quiet   chan struct{} // closed when it is dropped and nothing is at work
}

func newPartition(parent context.Context, topic string, id int32) *partition {
	p := &partition{topic: topic, id: id, quiet: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancelCause(parent)
	return p
}

// advance takes what is done off the front of pending.
func (p *partition) advance() {
	n := 0
	for n < len(p.pending) && p.pending[n].done {
		p.next = kgo.EpochOffset{Epoch: p.pending[n].epoch, Offset: p.pending[n].offset + 1}
		p.dirty = true
		p.pending[n] = nil
		n++
	}
	p.pending = p.pending[n:]
}

// drop makes an end of everything that has not begun.
func (p *partition) drop() {
	p.dropped = true
	p.settle()
}

// settle tells who waits for the end of a dropped partition's work.
func (p *partition) settle() {
	if p.dropped && p.working == 0 {
		select {
		case <-p.quiet:
		default:
			close(p.quiet)
			p.cancel(nil)
		}
	}
}

// An item is one record in hand.
type item struct {
	event  event
	part   *partition
	epoch  int32
	offset int64

	attempts int   // that failed
	outages  int   // of PostgreSQL, one after the other
	dead     error // it failed for good, for this reason, and is to go to inbox_dead
	working  bool
	done     bool
}

// finish makes i done, which frees its record.
func (i *item) finish() {
	i.done = true
	i.event = event{}
}

// gone reports that i is not to be begun any more.
func (i *item) gone() bool { return i.part.dropped && !i.working }
