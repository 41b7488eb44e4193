package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A groupPartition is a partition of a topic as one consumer group sees it.
type groupPartition struct {
	group     string
	topic     string
	partition int32
}

// offsets are what consumer groups have committed in Kafka.
type offsets struct {
	committed map[groupPartition]int64
	failed    map[string]error // groups of which Kafka did not tell
}

// why says why the event at offset of p may come again, and gives "" where the
// group has passed it.
func (o *offsets) why(p groupPartition, offset int64) string {
	if err := o.failed[p.group]; err != nil {
		return fmt.Sprintf("Kafka does not tell what group %s has committed: %v", p.group, err)
	}
	committed, ok := o.committed[p]
	switch {
	case !ok:
		return fmt.Sprintf("group %s has committed no offset in %s/%d, or Kafka has forgotten it", p.group, p.topic, p.partition)
	case offset >= committed:
		return fmt.Sprintf("group %s has committed offset %d of %s/%d, and an event here has %d", p.group, committed, p.topic, p.partition, offset)
	default:
		return ""
	}
}

// offsetsLimit bounds the question about one group.
const offsetsLimit = 30 * time.Second

// fetchOffsets asks Kafka for the offsets that groups have committed. A
// partition without one is missing from the answer, whatever the reason: the
// group never committed there, Kafka has forgotten it, or the topic is gone.
func fetchOffsets(ctx context.Context, client *kgo.Client, groups map[string]bool) *offsets {
	found := &offsets{committed: make(map[groupPartition]int64), failed: make(map[string]error)}
	for group := range groups {
		if err := found.fetch(ctx, client, group); err != nil {
			found.failed[group] = err
		}
	}
	return found
}

func (o *offsets) fetch(ctx context.Context, client *kgo.Client, group string) error {
	ctx, cancel := context.WithTimeout(ctx, offsetsLimit)
	defer cancel()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group // without topics: all of them
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if kerr.ErrorForCode(p.ErrorCode) == nil && p.Offset >= 0 {
					o.committed[groupPartition{group, t.Topic, p.Partition}] = p.Offset
				}
			}
		}
	}
	return nil
}
