package relay

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// A Delivery says how often a record may be in Kafka.
type Delivery string

// The ways to deliver.
const (
	// AtLeastOnce publishes a record as soon as it is read. After a crash
	// those of the last moment come again, with the same id and sequence.
	AtLeastOnce Delivery = "at-least-once"

	// ExactlyOnce publishes in Kafka transactions, each with the position it
	// reaches: those who read committed records see each once. A record is
	// seen some ten milliseconds later, and a relay that another one has
	// replaced can't publish any more.
	ExactlyOnce Delivery = "exactly-once"
)

// A publisher takes what the reader makes to Kafka, in the order of the log,
// and stores the position reached: s.saved is what may be confirmed to
// PostgreSQL. There is one for each [Delivery].
type publisher interface {
	// add takes the next record of t. The reader calls it, and the three after
	// it; none of them waits for Kafka.
	add(ctx context.Context, t *transaction, r *kgo.Record)
	commit(t *transaction, end lsn.Pos)
	keepalive(end lsn.Pos)      // between transactions
	interrupted(t *transaction) // the reader has stopped, inside t

	// run works until ctx ends. What it has begun by then it may go on with
	// until late ends.
	run(ctx, late context.Context) error

	// finish stores what is done after the reader and run have returned. It
	// ends with late.
	finish(late context.Context) error
}

// A point is how far the stream is done.
type point struct {
	end      lsn.Pos // to be confirmed: all that committed before it is done
	commit   lsn.Pos // of the last transaction that had records
	index    int64   // of its last record that is done
	sequence int64   // of that record
	id       string  // its event, where end does not cover the transaction
}

// reach gives the point that is reached by doing next too, which has an end, a
// record, or both.
func (p point) reach(next point) point {
	p.end = max(p.end, next.end) // never backwards
	if next.sequence > 0 {
		p.commit, p.index, p.sequence, p.id = next.commit, next.index, next.sequence, next.id
	}
	return p
}

// eventID gives the id of the event in r.
func eventID(r *kgo.Record) string {
	for i := range r.Headers {
		if r.Headers[i].Key == cloudevent.HeaderID {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}
