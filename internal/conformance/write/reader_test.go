package write_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// received is one record of the relay's.
type received struct {
	cloudevent.Event

	topic string
	key   string
}

// A reader reads all records of one relay and checks what holds for all of
// them: each comes once, those of a key come in the order of their sequence.
type reader struct {
	mu      sync.Mutex
	about   map[string][]received // by aggregate type
	byID    map[string]int64      // sequence
	dense   int64                 // every sequence up to it has come
	ahead   map[int64]bool        // those that have come beyond
	last    map[[2]string]int64   // sequence of the last of a key, by topic and key
	broken  []error
	changed chan struct{} // closed at the next record
}

func startReader(t *testing.T, brokers, topics []string) *reader {
	t.Helper()
	r := &reader{
		about: make(map[string][]received), byID: make(map[string]int64), ahead: make(map[int64]bool),
		last: make(map[[2]string]int64), changed: make(chan struct{}),
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	created, err := kadm.NewClient(client).CreateTopics(t.Context(), 3, 1, nil, topics...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { r.read(t.Context(), client) })
	t.Cleanup(func() { done.Wait(); client.Close() })
	return r
}

func (r *reader) read(ctx context.Context, client *kgo.Client) {
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		fetches.EachError(func(topic string, partition int32, err error) {
			r.broken = append(r.broken, fmt.Errorf("read %s/%d: %w", topic, partition, err))
		})
		fetches.EachRecord(r.add)
		for r.ahead[r.dense+1] {
			r.dense++
			delete(r.ahead, r.dense)
		}
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
	}
}

func (r *reader) add(record *kgo.Record) {
	e, err := cloudevent.Decode(record)
	if err != nil {
		r.broken = append(r.broken, fmt.Errorf("record %s/%d/%d: %w", record.Topic, record.Partition, record.Offset, err))
		return
	}
	if e.Sequence <= r.dense || r.ahead[e.Sequence] {
		r.broken = append(r.broken, fmt.Errorf("event %s: sequence %d came before", e.ID, e.Sequence))
	}
	if _, ok := r.byID[e.ID]; ok {
		r.broken = append(r.broken, fmt.Errorf("event %s came before", e.ID))
	}
	key := [2]string{record.Topic, string(record.Key)}
	if e.Sequence < r.last[key] {
		r.broken = append(r.broken, fmt.Errorf("event %s of %s came behind sequence %d, its own is %d", e.ID, key, r.last[key], e.Sequence))
	}
	r.last[key] = e.Sequence
	r.byID[e.ID] = e.Sequence
	r.ahead[e.Sequence] = true
	r.about[e.AggregateType] = append(r.about[e.AggregateType], received{Event: e, topic: record.Topic, key: string(record.Key)})
}

// upTo waits for the event id and all before it, and takes those of
// aggregateType, in the order of their sequence.
func (r *reader) upTo(ctx context.Context, id, aggregateType string) ([]received, error) {
	for {
		r.mu.Lock()
		sequence, ok := r.byID[id]
		if len(r.broken) > 0 || ok && sequence <= r.dense {
			defer r.mu.Unlock()
			list := r.about[aggregateType]
			delete(r.about, aggregateType)
			slices.SortFunc(list, func(a, b received) int { return cmp.Compare(a.Sequence, b.Sequence) })
			return list, errors.Join(r.broken...)
		}
		changed, dense := r.changed, r.dense
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			err := fmt.Errorf("wait for event %s: read up to sequence %d: %w", id, dense, ctx.Err())
			r.fail(err)
			return nil, err
		}
	}
}

// fail makes every test of the world fail at once that waits, or comes to:
// none would get what it waits for.
func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, err)
	close(r.changed)
	r.changed = make(chan struct{})
}
