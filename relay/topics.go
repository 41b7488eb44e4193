package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/slot"
)

const (
	// defaultMaxMessageBytes is Kafka's limit of a batch where a topic sets none.
	defaultMaxMessageBytes = 1_048_588

	// maxRequestBytes is what the client puts into one request, and a broker
	// takes by default, less what is around a batch.
	maxRequestBytes = 100<<20 - 1024

	// askAgain is how long a topic that no record can go to is not asked for
	// again: many events may wait to go there.
	askAgain = 10 * time.Second
)

// topics knows which topics exist, makes those that are missing, and learns
// how large a batch each takes. ensure is for one goroutine, batchMaxBytes for
// any.
type topics struct {
	cfg     Config
	refused func() // what the client calls in front of a refusal, see refusals
	lessons *lessons

	known map[string]int64 // the largest batch of those that exist
	bad   map[string]badTopic

	mu       sync.Mutex
	maxBytes map[string]int32
}

// A badTopic is one that no record can go to.
type badTopic struct {
	err   *TopicError
	until time.Time
}

// ensure returns once topic exists, with the largest batch that it takes. A
// [TopicError] says that no record can go there, whatever is tried again.
func (t *topics) ensure(ctx context.Context, client *kgo.Client, topic string) (limit int64, err error) {
	if limit, ok := t.known[topic]; ok {
		return limit, nil
	}
	if bad, ok := t.bad[topic]; ok && time.Now().Before(bad.until) {
		return 0, bad.err
	}
	limit, err = t.look(ctx, kadm.NewClient(client), topic)
	if bad, ok := errors.AsType[*TopicError](err); ok {
		if t.bad == nil {
			t.bad = make(map[string]badTopic)
		}
		t.bad[topic] = badTopic{bad, time.Now().Add(askAgain)}
	}
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	if t.maxBytes == nil {
		t.maxBytes = make(map[string]int32)
	}
	t.maxBytes[topic] = int32(limit)
	t.mu.Unlock()
	if t.known == nil {
		t.known = make(map[string]int64)
	}
	t.known[topic] = limit
	delete(t.bad, topic)
	return limit, nil
}

func (t *topics) look(ctx context.Context, admin *kadm.Client, topic string) (limit int64, err error) {
	if err := checkTopicName(topic); err != nil {
		return 0, &TopicError{Topic: topic, Reason: reasonTopicName, Err: err, Hint: "correct the topic's name in what writes the event"}
	}
	if topic == t.cfg.PositionsTopic {
		return 0, &TopicError{Topic: topic, Reason: reasonTopicName, Err: errors.New("it holds the relay's positions"), Hint: "correct the topic's name in what writes the event"}
	}
	plan := t.cfg.plan(topic)
	found, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("look for topic %s: %w", topic, err)
	}
	detail, there := found[topic], found.Has(topic)
	switch {
	case there && detail.Err == nil:
	case there && kerr.IsRetriable(detail.Err): // without a leader at the moment
	case there:
		return 0, t.denied(plan, topic, "the broker does not tell of it", detail.Err)
	default:
		if err := t.create(ctx, admin, plan, topic); err != nil {
			return 0, err
		}
	}
	limit = defaultMaxMessageBytes
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("read the configuration of topic %s: %w", topic, err)
	}
	// A topic made a moment ago, or one whose configuration we may not read,
	// answers with an error of its own: the default is then assumed.
	if c, err := configs.On(topic, nil); err == nil && c.Err == nil {
		config := make(map[string]string)
		for _, entry := range c.Configs {
			config[entry.Key] = entry.MaybeValue()
		}
		limit = batchLimit(config)
		if there && detail.Err == nil {
			t.compare(ctx, plan, detail, config)
		}
	}
	return limit, nil
}

// batchLimit is the largest batch of a topic: a segment of its log must hold
// one, too.
func batchLimit(config map[string]string) int64 {
	limit := int64(maxRequestBytes)
	for _, key := range []string{"max.message.bytes", "segment.bytes"} {
		if n, err := strconv.ParseInt(config[key], 10, 64); err == nil {
			limit = min(limit, n)
		}
	}
	return limit
}

// create makes a topic. What the broker refuses for the operator's sake ends
// the relay; what it refuses for the name's is the event's fault.
func (t *topics) create(ctx context.Context, admin *kadm.Client, plan topicPlan, topic string) error {
	_, err := admin.CreateTopic(ctx, plan.partitions, plan.replication, plan.values(), topic)
	switch {
	case err == nil:
		t.cfg.Log.InfoContext(ctx, "topic made", slog.String("topic", topic), slog.Int64("partitions", int64(plan.partitions)), slog.Any("config", plan.config))
		return nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return nil
	case kerr.IsRetriable(err) || !isA[*kerr.Error](err):
		return fmt.Errorf("create topic %s: %w", topic, err)
	case errors.Is(err, kerr.InvalidReplicationFactor), errors.Is(err, kerr.InvalidPartitions), errors.Is(err, kerr.InvalidConfig):
		return &slot.SetupError{
			What: fmt.Sprintf("topic %s can't be made as it is configured: %v", topic, err),
			Hint: "correct --topic, --topic-config, --topic-partitions or --topic-replication, or create it: " + plan.command(t.cfg.Brokers, topic),
		}
	}
	return t.denied(plan, topic, "it is missing and the broker refuses to make it", err)
}

func (t *topics) denied(plan topicPlan, topic, what string, err error) error {
	e := &TopicError{Topic: topic, Reason: reasonTopicMissing, Err: fmt.Errorf("%s: %w", what, err), Hint: "create it: " + plan.command(t.cfg.Brokers, topic)}
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		e.Reason = reasonTopicDenied
		e.Hint += "; and allow it: kafka-acls.sh --add --producer --topic " + topic
	}
	return e
}

// compare says what a topic has otherwise than it was asked for, once in the
// life of the relay.
func (t *topics) compare(ctx context.Context, plan topicPlan, topic kadm.TopicDetail, config map[string]string) {
	if t.lessons.compared(topic.Topic) {
		return
	}
	for _, d := range plan.differences(t.cfg.Brokers, topic, config) {
		t.cfg.Log.WarnContext(ctx, "topic is not as configured; it is left as it is",
			slog.String("topic", topic.Topic), slog.String("difference", d.what), slog.String("change_it", d.command))
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
