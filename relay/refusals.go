package relay

import "github.com/twmb/franz-go/pkg/kgo"

// refusals is the Kafka client's logger. The client logs that a batch was
// refused in front of failing its records, while it holds the lock of their
// partition; the promises of the records come later, from another goroutine,
// and by then what was produced meanwhile may be in Kafka. So the line in the
// log is what stops producing in time.
//
// The client tells failures by errors, hooks and promises; the other lines say
// nothing more, and are dropped.
type refusals struct{ stop func() }

// refusedBatch is the client's message.
const refusedBatch = "batch in a produce request failed"

// Level has the client write lines of the level of that one.
func (refusals) Level() kgo.LogLevel { return kgo.LogLevelInfo }

// Log implements [kgo.Logger].
func (r refusals) Log(_ kgo.LogLevel, message string, _ ...any) {
	if message == refusedBatch && r.stop != nil {
		r.stop()
	}
}
