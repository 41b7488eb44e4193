package inbox

import "time"

// A queue holds the items of one ordering key in the order in which they came,
// of whatever partitions. At most the first is at work. The scheduler's lock
// guards it.
type queue struct {
	key   string
	items []*item
	state queueState
	timer *time.Timer // wakes it when it rests
	held  bool        // its first has failed for good, and there is no Pool: it is tried for ever
}

type queueState uint8

const (
	idle    queueState = iota // it has just been made
	ready                     // it is in the scheduler's list
	working                   // a worker has its first item
	resting                   // its first item is in back-off
)

// prune takes items of dropped partitions off the front.
func (q *queue) prune() {
	n := 0
	for n < len(q.items) && q.items[n].gone() {
		q.items[n] = nil
		n++
	}
	q.items = q.items[n:]
}

// pop takes the first item off.
func (q *queue) pop() {
	q.items[0] = nil
	q.items = q.items[1:]
}

// wake stops the timer of a queue that rests.
func (q *queue) wake() {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
}
