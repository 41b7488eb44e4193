package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/slot"
)

// defaultMaxMessageBytes is Kafka's limit of a batch where a topic sets none.
const defaultMaxMessageBytes = 1_048_588

// topics knows which topics exist, makes those that are missing, and learns
// how large a batch each takes. ensure is for one goroutine, batchMaxBytes for
// any.
type topics struct {
	partitions  int32
	replication int16

	known map[string]struct{}

	mu       sync.Mutex
	maxBytes map[string]int32
}

// ensure returns once topic exists and its limits are known.
func (t *topics) ensure(ctx context.Context, client *kgo.Client, topic string) error {
	if _, ok := t.known[topic]; ok {
		return nil
	}
	admin := kadm.NewClient(client)
	found, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("look for topic %s: %w", topic, err)
	}
	if !found.Has(topic) {
		if err := t.create(ctx, admin, topic); err != nil {
			return err
		}
	}
	limit := int32(defaultMaxMessageBytes)
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return fmt.Errorf("read the configuration of topic %s: %w", topic, err)
	}
	// A topic made a moment ago, or one whose configuration we may not read,
	// answers with an error of its own: the default is then assumed.
	if c, err := configs.On(topic, nil); err == nil && c.Err == nil {
		for _, entry := range c.Configs {
			if n, err := strconv.ParseInt(entry.MaybeValue(), 10, 32); entry.Key == "max.message.bytes" && err == nil {
				limit = int32(n)
			}
		}
	}
	t.mu.Lock()
	if t.maxBytes == nil {
		t.maxBytes = make(map[string]int32)
	}
	t.maxBytes[topic] = limit
	t.mu.Unlock()
	if t.known == nil {
		t.known = make(map[string]struct{})
	}
	t.known[topic] = struct{}{}
	return nil
}

func (t *topics) create(ctx context.Context, admin *kadm.Client, topic string) error {
	_, err := admin.CreateTopic(ctx, t.partitions, t.replication, nil, topic)
	switch {
	case err == nil, errors.Is(err, kerr.TopicAlreadyExists):
		return nil
	case kerr.IsRetriable(err) || !isA[*kerr.Error](err):
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return &slot.SetupError{
		What: fmt.Sprintf("topic %s is missing and the broker refuses to make it: %v", topic, err),
		Hint: fmt.Sprintf("create it: kafka-topics.sh --create --topic %s --partitions %d", topic, t.partitions),
	}
}

// batchMaxBytes is how large a batch the client may build for topic.
func (t *topics) batchMaxBytes(topic string) int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit, ok := t.maxBytes[topic]
	if !ok {
		limit = defaultMaxMessageBytes
	}
	return min(max(limit, 512), 1<<30) // what the client accepts
}
