package position

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", s.Topic, err)
	}
	return nil
}

// Save writes p and returns once all in-sync replicas have it. When ctx ends
// earlier, p may still be written.
func (s *Store) Save(ctx context.Context, p Position) error {
	value, err := p.Encode()
	if err != nil {
		return fmt.Errorf("save position %v: %w", p.End, err)
	}
	record := &kgo.Record{Topic: s.Topic, Key: []byte(s.Source), Value: value}
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

// Load reads the source's last position; found is false where there is none.
func (s *Store) Load(ctx context.Context) (p Position, found bool, err error) {
	admin := kadm.NewClient(s.Client)
	starts, err := admin.ListStartOffsets(ctx, s.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return p, false, fmt.Errorf("load position of %s: %w", s.Source, err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, s.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return p, false, fmt.Errorf("load position of %s: %w", s.Source, err)
	}
	start, _ := starts.Lookup(s.Topic, 0)
	end, _ := ends.Lookup(s.Topic, 0)
	for from := max(start.Offset, end.Offset-tail); ; from = start.Offset {
		p, found, err = s.last(ctx, from, end.Offset)
		if err != nil {
			return p, false, fmt.Errorf("load position of %s: %w", s.Source, err)
		}
		if found || from <= start.Offset {
			return p, found, nil
		}
	}
}

// last reads the offsets from from to end and gives the source's last position
// among them.
func (s *Store) last(ctx context.Context, from, end int64) (p Position, found bool, err error) {
	if from >= end {
		return p, false, nil
	}
	at := kgo.NewOffset().At(from)
	client, err := kgo.NewClient(append(slices.Clip(s.Options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.Topic: {0: at}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers of transactions and compacted records take offsets too: only
		// with them in sight is the end seen to be reached.
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return p, false, err
	}
	defer client.Close()
	for next := from; next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return p, false, err
		}
		for _, e := range fetches.Errors() {
			return p, false, e.Err
		}
		var bad error
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if r.Attrs.IsControl() || string(r.Key) != s.Source || r.Offset >= end {
				return
			}
			got, err := Decode(r.Value)
			if err != nil {
				bad = fmt.Errorf("offset %d: %w", r.Offset, err)
				return
			}
			p, found = got, true
		})
		if bad != nil {
			return p, false, bad
		}
	}
	return p, found, nil
}
