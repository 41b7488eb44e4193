package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// A follower reads what comes, to know when to do something.
type follower struct {
	mu      sync.Mutex
	ids     map[string]struct{}
	changed chan struct{} // closed when an event comes that had not been there
}

// follow reads topics until the test ends.
func follow(t *testing.T, options []kgo.Opt, topics []string) *follower {
	t.Helper()
	f := &follower{ids: make(map[string]struct{}), changed: make(chan struct{})}
	client, err := kgo.NewClient(append(slices.Clip(options), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			fetches := client.PollFetches(t.Context())
			if t.Context().Err() != nil {
				return
			}
			f.mu.Lock()
			before := len(f.ids)
			fetches.EachRecord(func(r *kgo.Record) { // what is wrong with one, the check says
				for _, h := range r.Headers {
					if h.Key == cloudevent.HeaderID {
						f.ids[string(h.Value)] = struct{}{}
					}
				}
			})
			if len(f.ids) > before {
				close(f.changed)
				f.changed = make(chan struct{})
			}
			f.mu.Unlock()
		}
	})
	t.Cleanup(func() { done.Wait(); client.Close() })
	return f
}

// count is how many events have come.
func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ids)
}

// reach returns when n events have come, or with an error within a deadline
// or when something else ends the wait.
func (f *follower) reach(n int, within time.Duration, ended <-chan struct{}) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		have, changed := len(f.ids), f.changed
		f.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			return fmt.Errorf("the relay has ended; %d events are in Kafka, waited for %d", have, n)
		case <-deadline.C:
			return fmt.Errorf("after %v %d events are in Kafka, waited for %d", within, have, n)
		}
	}
}

// readAll reads topics from their beginning to their end, as a consumer does
// that sees committed records only. No one may write meanwhile.
func readAll(t *testing.T, options []kgo.Opt, topics []string) []published {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(append(slices.Clip(options), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...) // markers take offsets too
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var ends kadm.ListedOffsets
	devstacktest.Wait(t, "no transaction to be open", time.Minute, func() bool {
		stable, err := admin.ListCommittedOffsets(ctx, topics...)
		if err != nil || stable.Error() != nil {
			return false
		}
		ends, err = admin.ListEndOffsets(ctx, topics...)
		if err != nil || ends.Error() != nil {
			return false
		}
		same := true
		ends.Each(func(o kadm.ListedOffset) {
			s, ok := stable.Lookup(o.Topic, o.Partition)
			same = same && ok && s.Offset == o.Offset
		})
		return same
	})
	left := make(map[string]int64) // what is still to be read, by topic and partition
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = o.Offset
		}
	})
	var all []published
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read to the end, with %v left: %v", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if place := fmt.Sprintf("%s/%d", r.Topic, r.Partition); r.Offset+1 >= left[place] {
				delete(left, place)
			}
			if r.Attrs.IsControl() {
				return
			}
			p, err := decode(r)
			if err != nil {
				t.Error(err)
				return
			}
			all = append(all, p)
		})
	}
	return all
}
