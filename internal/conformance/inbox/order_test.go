package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestKeysOfOnePartitionAtOnce has the handlers of different keys of one
// partition wait for each other.
func TestKeysOfOnePartitionAtOnce(t *testing.T) {
	w := newWorld(t, 1)
	w.steps(t, 1, 1, "a", "b", "c")
	var here atomic.Int32
	all := make(chan struct{})
	w.start(t, w.config(t), func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if here.Add(1) == 3 {
			close(all)
		}
		select {
		case <-all:
			return effect(ctx, tx, e, "")
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	w.wait(t, `select count(*) = 3 from effects`)
}

// TestOneKeyOfTwoTopicsIsHandledByOneHandler has events of one aggregate in
// several topics, and none of its handlers may meet another.
func TestOneKeyOfTwoTopicsIsHandledByOneHandler(t *testing.T) {
	w := newWorld(t, 1)
	other := w.topic + ".other"
	w.createTopic(t, other, 1)
	for n := 1; n <= 20; n++ {
		r := w.event("a", n)
		if n%2 == 0 {
			r.Topic = other
		}
		w.produce(t, r)
	}
	config := w.config(t)
	config.Topics = []string{w.topic, other}
	var here, met atomic.Int32
	w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if here.Add(1) > 1 {
			met.Add(1)
		}
		defer here.Add(-1)
		if _, err := tx.Exec(ctx, `select pg_sleep(0.01)`); err != nil {
			return err
		}
		return effect(ctx, tx, e, e.Topic)
	})
	w.wait(t, `select count(*) = 20 and count(distinct member) = 2 from effects`)
	if met.Load() > 0 {
		t.Errorf("%d times two handlers of one key were at work", met.Load())
	}
}

// TestPoisonBlocksItsKeyOnly has one event fail for good: what follows of its
// key waits behind it, also in another process and after a restart, and the
// other keys go on.
func TestPoisonBlocksItsKeyOnly(t *testing.T) {
	w := newWorld(t, 2)
	other := w.topic + ".other"
	w.createTopic(t, other, 1)
	w.steps(t, 1, 4, "a", "b", "c")
	config := w.config(t)
	config.Topics = []string{w.topic, other}
	var calls atomic.Int32
	h := func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if err := effect(ctx, tx, e, ""); err != nil {
			return err
		}
		if e.Subject == "a" && e.Value.N == 2 {
			calls.Add(1)
			return fmt.Errorf("poison\x00 \xff")
		}
		return nil
	}
	in, stop := w.start(t, config, h)
	w.wait(t, `select count(*) = 8 from effects where key in ('b', 'c')`)
	w.wait(t, `select count(*) = 3 from inbox_dead`)
	if n := calls.Load(); n != 3 {
		t.Errorf("the handler was tried %d times, want MaxAttempts, 3", n)
	}
	letters := func() string {
		return value[string](t, w, `select string_agg(concat_ws(' ', convert_from(payload, 'UTF8'), state, attempts, error), '; ' order by id) from inbox_dead where ordering_key = 'walker/a'`)
	}
	if got, want := letters(), `{"N":2} dead 3 poison\x00 `+"\uFFFD"+`; {"N":3} waiting 0; {"N":4} waiting 0`; got != want {
		t.Errorf("dead letters\n%s, want\n%s", got, want)
	}
	if s := in.Stats(); s.Dead != 1 || s.Waiting != 2 || s.Retries != 2 {
		t.Errorf("Stats %+v, want 1 dead, 2 waiting, 2 retries", s)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// Again after a restart, and delivered again, and by another topic.
	in, _ = w.start(t, config, h)
	r := w.event("a", 6)
	r.Topic = other
	w.produce(t, w.event("a", 2), w.event("a", 3), w.event("a", 5), w.event("b", 5))
	w.wait(t, `select count(*) = 4 from inbox_dead`)
	w.produce(t, r)
	w.wait(t, `select count(*) = 5 from inbox_dead`)
	if got, want := letters(), `{"N":2} dead 3 poison\x00 `+"\uFFFD"+`; {"N":3} waiting 0; {"N":4} waiting 0; {"N":5} waiting 0; {"N":6} waiting 0`; got != want {
		t.Errorf("dead letters\n%s, want\n%s", got, want)
	}
	w.wait(t, `select count(*) = 5 from effects where key = 'b'`)
	w.check(t, 1, "a")
	w.check(t, 5, "b")
	if s := in.Stats(); s.Duplicates < 2 {
		t.Errorf("Stats %+v: the letters that came again were not recognised", s)
	}
	if n := calls.Load(); n != 3 {
		t.Errorf("the handler of a dead letter was called again: %d calls", n)
	}
}

// TestARestingKeyHoldsNoWorker has more keys in back-off than there are
// workers.
func TestARestingKeyHoldsNoWorker(t *testing.T) {
	w := newWorld(t, 1)
	ks := keys(6)
	w.steps(t, 1, 1, ks...)
	config := w.config(t)
	config.Concurrency, config.Backoff, config.MaxBackoff, config.MaxAttempts = 2, time.Hour, time.Hour, 2
	in, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if e.Subject < "k05" {
			return errFlaky
		}
		return effect(ctx, tx, e, "")
	})
	w.wait(t, `select count(*) = 1 from effects where key = 'k05'`)
	devstacktest.Wait(t, "five keys to rest", limit, func() bool { return in.Stats().Resting == 5 })
	if at := w.committed(t); at > 0 {
		t.Errorf("offset %d is committed, past events in back-off", at)
	}
}

// TestInFlightIsBounded has a handler hold up its partition.
func TestInFlightIsBounded(t *testing.T) {
	w := newWorld(t, 1)
	w.steps(t, 1, 100, "a", "b")
	config := w.config(t)
	config.MaxInFlight = 12
	release := make(chan struct{})
	in, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if e.Subject == "a" {
			select {
			case <-release:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return effect(ctx, tx, e, "")
	})
	highest := 0
	devstacktest.Wait(t, "the partition to be paused", limit, func() bool {
		highest = max(highest, in.Stats().InFlight)
		p := in.Stats().Partitions
		return len(p) == 1 && p[0].Paused && in.Stats().AtWork == 1
	})
	close(release)
	devstacktest.Wait(t, "all to be handled", limit, func() bool {
		highest = max(highest, in.Stats().InFlight)
		return value[bool](t, w, `select count(*) = 200 from effects`)
	})
	if highest > config.MaxInFlight || highest < 3 {
		t.Errorf("%d records were in flight, want at most %d", highest, config.MaxInFlight)
	}
	w.check(t, 100, "a", "b")
}

// TestWithoutPostgreSQL has no pool: an event that goes on failing holds its
// key, and no offset passes it.
func TestWithoutPostgreSQL(t *testing.T) {
	w := newWorld(t, 1)
	w.steps(t, 1, 5, "a", "b")
	config := w.config(t)
	config.Pool = nil
	in, err := inbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := inbox.Handle(in, w.typed(), func(context.Context, pgx.Tx, inbox.Received[step]) error { return nil }); err == nil {
		t.Error("Handle without a pool is not refused")
	}
	var mended atomic.Bool
	seen := make(chan inbox.Received[step], 1000)
	err = inbox.HandleFunc(in, w.typed(), func(_ context.Context, e inbox.Received[step]) error {
		if e.Subject == "a" && e.Value.N == 2 && !mended.Load() {
			return inbox.Permanent(errors.New("not yet"))
		}
		seen <- e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, in)
	devstacktest.Wait(t, "key a to be held", limit, func() bool { return in.Stats().Held == 1 && in.Stats().Handled == 6 && in.Stats().Retries > 5 })
	devstacktest.Wait(t, "the prefix to be committed", limit, func() bool { return w.committed(t) == 2 })
	mended.Store(true)
	devstacktest.Wait(t, "key a to go on", limit, func() bool { return in.Stats().Handled == 10 && in.Stats().Held == 0 })
	devstacktest.Wait(t, "everything to be committed", limit, func() bool { return w.committed(t) == 10 })
	close(seen)
	next := map[string]int{"a": 1, "b": 1}
	for e := range seen {
		if e.Value.N != next[e.Subject] {
			t.Errorf("key %s: step %d, want %d", e.Subject, e.Value.N, next[e.Subject])
		}
		next[e.Subject] = e.Value.N + 1
	}
}

// TestOneTypeHasOneHandler also refuses what is wrong with the type.
func TestOneTypeHasOneHandler(t *testing.T) {
	in, err := inbox.New(inbox.Config{Brokers: []string{"127.0.0.1:1"}, Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	typed := outbox.Typed[step]{Name: "Stepped", Topic: "t", AggregateType: "walker"}
	nothing := func(context.Context, inbox.Received[step]) error { return nil }
	if err := inbox.HandleFunc(in, typed, nothing); err != nil {
		t.Fatal(err)
	}
	if err := inbox.HandleFunc(in, typed, nothing); err == nil {
		t.Error("a second handler of a type is not refused")
	}
	typed.Name = ""
	if err := inbox.HandleFunc(in, typed, nothing); err == nil {
		t.Error("a type without a name is not refused")
	}
}
