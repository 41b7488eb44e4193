package relay

import (
	"sync"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// A tracker turns acknowledgements, which come in any order, into the one
// point that is safe to store: the end of the longest run of entries from the
// front that are done. The zero tracker is ready to use, and safe for
// concurrent use.
//
// A keepalive is an entry like a transaction: what the server says it has sent
// up to counts only when all that came before it is done.
type tracker struct {
	mu      sync.Mutex
	entries []*entry // in the order of the stream
	front   int      // of entries, what is before it is done
	done    point
	changed chan struct{} // see wait
}

// An entry is a transaction or a part of one, or a keepalive.
type entry struct {
	point        // reached when it is done: without an end inside a transaction
	pending int  // records not yet acknowledged
	closed  bool // no record follows
}

// begin adds an entry whose records follow.
func (t *tracker) begin() *entry {
	e := new(entry)
	t.mu.Lock()
	t.entries = append(t.entries, e)
	t.mu.Unlock()
	return e
}

// add counts a record of e that is about to be produced.
func (t *tracker) add(e *entry) {
	t.mu.Lock()
	e.pending++
	t.mu.Unlock()
}

// acknowledge counts a record of e that Kafka has.
func (t *tracker) acknowledge(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.pending--
	t.advance()
}

// close says that no record of e follows, and what is reached with it.
func (t *tracker) close(e *entry, p point) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.point, e.closed = p, true
	t.advance()
}

// keepalive adds that everything before end has been sent.
func (t *tracker) keepalive(end lsn.Pos) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.entries); n > t.front {
		if last := t.entries[n-1]; last.closed && last.pending == 0 && last.sequence == 0 {
			last.end = max(last.end, end) // two keepalives in a row are one
			return
		}
	}
	t.entries = append(t.entries, &entry{point: point{end: end}, closed: true})
	t.advance()
}

// advance moves done over the entries that are done. t.mu is held.
func (t *tracker) advance() {
	before := t.done
	for t.front < len(t.entries) {
		e := t.entries[t.front]
		if !e.closed || e.pending > 0 {
			break
		}
		t.done = t.done.reach(e.point)
		t.entries[t.front] = nil
		t.front++
	}
	if t.front > 64 && t.front > len(t.entries)/2 {
		t.entries = t.entries[:copy(t.entries, t.entries[t.front:])]
		t.front = 0
	}
	if t.done != before && t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// reached gives the point up to which all is done, and a channel that is
// closed when it has moved on.
func (t *tracker) reached() (point, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.done, t.changed
}

// inFlight is how many entries are read and not done.
func (t *tracker) inFlight() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries) - t.front
}
