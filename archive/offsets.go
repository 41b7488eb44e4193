package archive

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Offsets are those of records that are written but not yet committed, and how
// far each partition is behind. The zero value is ready to use. It is safe for
// concurrent use: the group takes partitions away from a goroutine of its own.
type offsets struct {
	mu   sync.Mutex
	next map[string]map[int32]kgo.EpochOffset // the offset to go on from
	lag  map[string]map[int32]int64
}

// written notes that all of records are in MongoDB. Of one partition they come
// in order.
func (o *offsets) written(records []*kgo.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next == nil {
		o.next = make(map[string]map[int32]kgo.EpochOffset)
	}
	for _, r := range records {
		put(o.next, r.Topic, r.Partition, kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1})
	}
}

// behind notes a partition's lag and gives the whole topic's.
func (o *offsets) behind(topic string, partition int32, lag int64) (total int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lag == nil {
		o.lag = make(map[string]map[int32]int64)
	}
	put(o.lag, topic, partition, lag)
	for _, n := range o.lag[topic] {
		total += n
	}
	return total
}

func put[V any](m map[string]map[int32]V, topic string, partition int32, v V) {
	if m[topic] == nil {
		m[topic] = make(map[int32]V)
	}
	m[topic][partition] = v
}

// uncommitted gives what is to be committed; it stays until committed.
func (o *offsets) uncommitted() map[string]map[int32]kgo.EpochOffset {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[string]map[int32]kgo.EpochOffset, len(o.next))
	for topic, partitions := range o.next {
		for partition, offset := range partitions {
			put(out, topic, partition, offset)
		}
	}
	return out
}

func (o *offsets) pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.next) > 0
}

// committed notes that what uncommitted gave last is committed.
func (o *offsets) committed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.next)
}

// forget drops partitions that are no longer ours: whoever has them now may
// be further.
func (o *offsets) forget(partitions map[string][]int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for topic, list := range partitions {
		for _, partition := range list {
			delete(o.next[topic], partition)
			delete(o.lag[topic], partition)
		}
		if len(o.next[topic]) == 0 {
			delete(o.next, topic)
		}
	}
}
