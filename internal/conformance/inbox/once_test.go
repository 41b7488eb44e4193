package inbox_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestEffectOnceAndInOrder delivers again at random, has handlers fail and
// panic at random, and has members of the group come and go at random.
func TestEffectOnceAndInOrder(t *testing.T) {
	for _, seed := range []uint64{1, uint64(time.Now().UnixNano())} { //nolint:gosec // any number is a seed
		t.Run("", func(t *testing.T) {
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(t, 4)
			ks, last := keys(9), 40
			records := deliveries(w, random, ks, last)
			config := w.config(t)
			config.MaxAttempts = 1000 // nothing may die
			var members []func() error
			duplicates := func() int64 { return 0 }
			join := func() {
				in, stop := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
					if err := effect(ctx, tx, e, ""); err != nil {
						return err
					}
					switch rand.IntN(8) { // after the effect, which must then be undone
					case 0:
						return errFlaky
					case 1:
						panic(errFlaky)
					}
					return nil
				})
				members = append(members, stop)
				before := duplicates
				duplicates = func() int64 { return before() + in.Stats().Duplicates }
			}
			join()
			for len(records) > 0 {
				n := min(len(records), 1+random.IntN(40))
				w.produce(t, records[:n]...)
				records = records[n:]
				switch {
				case len(members) < 3 && random.IntN(3) == 0:
					join()
				case len(members) > 1 && random.IntN(4) == 0:
					i := random.IntN(len(members))
					if err := members[i](); err != nil {
						t.Fatal(err)
					}
					members = slices.Delete(members, i, i+1)
				}
			}
			ends, err := w.admin.ListEndOffsets(t.Context(), w.topic)
			if err != nil {
				t.Fatal(err)
			}
			var end int64
			for _, p := range ends[w.topic] {
				end += p.Offset
			}
			devstacktest.Wait(t, "the group to finish", limit, func() bool { return w.committed(t) == end })
			w.check(t, last, ks...)
			if duplicates() == 0 {
				t.Error("no redelivery was recognised: the test delivers none")
			}
			if n := value[int](t, w, `select count(*) from inbox_dead`); n != 0 {
				t.Errorf("%d dead letters", n)
			}
		})
	}
}

// deliveries gives the steps 1 to last of each key in order, mixed, with whole
// stretches delivered again, as a relay does after a crash, and single ones.
func deliveries(w *world, random *rand.Rand, ks []string, last int) []*kgo.Record {
	var fresh []*kgo.Record
	at := make(map[string]int)
	for left := slices.Clone(ks); len(left) > 0; {
		i := random.IntN(len(left))
		at[left[i]]++
		fresh = append(fresh, w.event(left[i], at[left[i]]))
		if at[left[i]] == last {
			left = slices.Delete(left, i, i+1)
		}
	}
	var all []*kgo.Record
	for i, r := range fresh {
		all = append(all, r)
		from := i + 1
		if random.IntN(20) == 0 {
			from = max(0, i-random.IntN(30))
		}
		for _, again := range fresh[from : i+1] {
			c := *again
			all = append(all, &c)
		}
		if random.IntN(10) == 0 {
			c := *fresh[random.IntN(i+1)]
			all = append(all, &c)
		}
	}
	return all
}

// TestDeathAndRedriveKeepTheOrder has events die all the time and be redriven
// all the time, by several members that come and go, while others come from
// Kafka.
func TestDeathAndRedriveKeepTheOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number is a seed
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, 3)
	ks, last := keys(6), 40
	config := w.config(t)
	config.MaxAttempts, config.Log, config.Timeout = 2, nil, limit
	var members []func() error
	died := func() int64 { return 0 }
	join := func() {
		in, stop := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
			if err := effect(ctx, tx, e, ""); err != nil {
				return err
			}
			if rand.IntN(3) == 0 {
				return errFlaky
			}
			return nil
		})
		members = append(members, stop)
		before := died
		died = func() int64 { return before() + in.Stats().Dead }
	}
	join()
	join()
	redrive := func() {
		if _, err := (inbox.DeadLetters{DB: w.pool}).Redrive(t.Context(), inbox.Redrive{}); err != nil {
			t.Fatal(err)
		}
	}
	for records := deliveries(w, random, ks, last); len(records) > 0; {
		n := min(len(records), 1+random.IntN(20))
		w.produce(t, records[:n]...)
		records = records[n:]
		redrive()
		if random.IntN(6) == 0 {
			if err := members[0](); err != nil {
				t.Fatal(err)
			}
			members = members[1:]
			join()
		}
	}
	// Sooner than a lease ends: whoever stopped has left none behind.
	devstacktest.Wait(t, "every event to be handled", config.Timeout, func() bool {
		redrive()
		return value[bool](t, w, `select count(*) >= $1 and not exists (select from inbox_dead) from effects`, len(ks)*last)
	})
	w.check(t, last, ks...)
	if died() == 0 {
		t.Error("no event died: the test tests nothing")
	}
}
