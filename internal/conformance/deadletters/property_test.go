package deadletters_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestOrderThroughDeadLetters: however events of some keys, handlers that fail
// and redrives interleave, every key's effects are in the order of its events,
// each once, and no handler is called more often than it failed and one.
//
// Two processes of the group run all the time; each check has keys of its own.
func TestOrderThroughDeadLetters(t *testing.T) {
	t.Parallel()
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			first, second := w.config(), w.config()
			first.Isolation, second.Isolation = level, level
			second.Pool = w.newPool()
			w.start(first)
			w.start(second)
			w.keepsOrder(t)
		})
	}
}

func (w *world) keepsOrder(t *testing.T) {
	checks, events := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		checks++
		first := events
		keys := make([]string, rapid.IntRange(1, 3).Draw(rt, "keys"))
		for i := range keys {
			keys[i] = fmt.Sprintf("%d-%d", checks, i)
		}
		want := make(map[string][]int)
		failures := make(map[int]int)
		key := rapid.SampledFrom(keys)
		produce := func() {
			k, n := key.Draw(rt, "key of the event"), events
			events++
			want[k] = append(want[k], n)
			failures[n] = rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(rt, "failures")
			w.plan.fail(n, failures[n])
			w.produce(w.event(k, n))
		}
		redrive := func(f inbox.Filter) {
			f.Group = w.group
			if _, err := w.letters().Redrive(t.Context(), inbox.Redrive{Filter: f}); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0:
				redrive(inbox.Filter{})
			case 1:
				redrive(inbox.Filter{OrderingKey: "thing/" + key.Draw(rt, "key redriven")})
			case 2: // two at once
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() { redrive(inbox.Filter{}) })
				}
				wg.Wait()
			case 3:
				w.settled(events)
			default:
				produce()
			}
		}

		// Every redrive of a key's first letter uses up a failure of it, so as
		// many as there are failures, and one, make an end.
		w.settled(events)
		rounds := 1
		for n := first; n < events; n++ {
			rounds += failures[n]
		}
		for range rounds {
			if len(w.list(inbox.Filter{})) == 0 {
				break
			}
			redrive(inbox.Filter{})
			w.settled(events)
		}
		if left := w.list(inbox.Filter{}); len(left) != 0 {
			rt.Fatalf("%d letters left after %d redrives: %+v", len(left), rounds, left)
		}
		for _, k := range keys {
			if got := w.effects(k); !slices.Equal(got, want[k]) {
				rt.Errorf("effects of %s = %v, want %v", k, got, want[k])
			}
		}
		for n := first; n < events; n++ {
			if got := w.plan.called(n); got != failures[n]+1 {
				rt.Errorf("event %d: its handler was called %d times, and was to fail %d times", n, got, failures[n])
			}
		}
	})
	t.Logf("%d events in %d checks", events, checks)
}
