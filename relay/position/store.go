package position

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// DefaultTopic is where positions are kept. The leading underscore keeps it
// out of the way of those who read all topics.
const DefaultTopic = "_relay.positions"

// tail is how many records at the end of the topic are read first. The topic
// is compacted late, and the position asked for is almost always near the end.
const tail = 1000

// A Store reads and writes the positions of one source. It is not safe for
// concurrent use.
type Store struct {
	Client *kgo.Client // idempotent, acks from all in-sync replicas
	Topic  string
	Source string // the record's key

	// Replication is the topic's replication factor when the store makes it;
	// -1 takes the broker's default.
	Replication int16

	// Options are those to connect with: Load reads through a client of its
	// own.
	Options []kgo.Opt
}

// Prepare creates the topic if it is missing: one partition, compacted, in
// small segments so that compaction gets to work and a start reads little.
func (s *Store) Prepare(ctx context.Context) error {
	str := func(v string) *string { return &v }
	_, err := kadm.NewClient(s.Client).CreateTopic(ctx, 1, s.Replication, map[string]*string{
		"cleanup.policy":            str("compact"),
		"segment.bytes":             str("1048576"),
		"min.cleanable.dirty.ratio": str("0.01"),
	}, s.Topic)
	if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	// Who may not make topics may find it made.
	if topics, listErr := kadm.NewClient(s.Client).ListTopics(ctx, s.Topic); listErr == nil && topics[s.Topic].Partitions != nil && topics[s.Topic].Err == nil {
		return nil
	}
	return fmt.Errorf("create topic %s: %w", s.Topic, err)
}

// Record gives the record that stores p, for those who write it themselves: in
// a Kafka transaction with what it tells of.
func (s *Store) Record(p Position) (*kgo.Record, error) {
	value, err := p.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode position %v: %w", p.End, err)
	}
	return &kgo.Record{Topic: s.Topic, Key: []byte(s.Source), Value: value}, nil
}

// Save writes p outside a transaction and returns once all in-sync replicas
// have it. When ctx ends earlier, p may still be written.
func (s *Store) Save(ctx context.Context, p Position) error {
	record, err := s.Record(p)
	if err != nil {
		return err
	}
	// ProduceSync waits for a record on its way even after its context has
	// ended, with a broker that is down for as long as that is down.
	done := make(chan error, 1)
	s.Client.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) { done <- err })
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("save position %v: %w", p.End, err)
	}
	return nil
}
