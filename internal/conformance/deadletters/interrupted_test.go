package deadletters_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestAStopInTheMiddleOfARedrive: the handler at work ends, nothing further
// begins, and the next process goes on at once.
func TestAStopInTheMiddleOfARedrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	stop := w.start(w.config())
	w.produce(w.event("a", 0), w.event("a", 1), w.event("a", 2))
	w.settled(3)
	working, release := make(chan struct{}), make(chan struct{})
	w.plan.mu.Lock()
	w.plan.before = func(context.Context, int) { close(working); <-release }
	w.plan.mu.Unlock()
	w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
	<-working
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	select {
	case <-stopped:
		t.Error("Run returned while a redriven handler was at work")
	case <-time.After(300 * time.Millisecond): // a stop that does not wait is long over
	}
	w.plan.mu.Lock()
	w.plan.before = nil
	w.plan.mu.Unlock()
	close(release)
	<-stopped
	equal(t, "effects after the stop", w.effects("a"), []int{0})
	if l := w.list(inbox.Filter{}); len(l) != 2 || l[0].RedriveAt.IsZero() || l[0].RedriveAt.After(time.Now().Add(time.Second)) {
		t.Errorf("letters after the stop = %+v, want the first of 2 due", l)
	}
	w.start(w.config())
	w.settled(3)
	equal(t, "effects", w.effects("a"), []int{0, 1, 2})
}

// TestAHandlerThatOutlastsTheGrace is cut off, has no effect, is not counted
// as failed, and is called again by the next process.
func TestAHandlerThatOutlastsTheGrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	cfg := w.config()
	cfg.Grace = 200 * time.Millisecond
	stop := w.start(cfg)
	w.produce(w.event("a", 0), w.event("a", 1))
	w.settled(2)
	working := make(chan struct{})
	w.plan.mu.Lock()
	w.plan.failures[0] = 1 // it gives its error when it is cut off
	w.plan.before = func(ctx context.Context, _ int) { close(working); <-ctx.Done() }
	w.plan.mu.Unlock()
	w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
	<-working
	stop()
	if l := w.list(inbox.Filter{}); len(l) != 2 || l[0].RedriveAt.IsZero() || l[0].Attempts != 1 || len(w.effects("a")) != 0 {
		t.Errorf("after the stop: effects %v, letters %+v, want none, and the first of 2 due with 1 attempt", w.effects("a"), l)
	}
	w.plan.mu.Lock()
	w.plan.before = nil
	w.plan.mu.Unlock()
	w.start(w.config())
	w.settled(2)
	equal(t, "effects", w.effects("a"), []int{0, 1})
}

// TestALostConnectionIsNoFailure: the handler's transaction is torn away in
// the middle; the letter is tried again and has its effect once.
func TestALostConnectionIsNoFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	cfg := w.config()
	cfg.MaxAttempts = 5
	var told tally
	cfg.Hooks = []inbox.Hook{&told}
	w.start(cfg)
	w.plan.fail(0, 5)
	w.produce(w.event("a", 0), w.event("a", 1))
	w.settled(2)
	var torn atomic.Int32
	w.plan.mu.Lock()
	w.plan.before = func(ctx context.Context, n int) {
		if n == 0 && torn.Add(1) <= 2 {
			// The one transaction in this database that holds a key's lock.
			if _, err := w.pool.Exec(ctx, `select pg_terminate_backend(pid, 5000) from pg_locks where locktype = 'advisory' and granted
				and database = (select oid from pg_database where datname = current_database())`); err != nil {
				t.Error(err)
			}
		}
	}
	w.plan.mu.Unlock()
	told.retried.Store(0)
	w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
	w.settled(2)
	equal(t, "effects", w.effects("a"), []int{0, 1})
	if got := torn.Load(); got != 3 {
		t.Errorf("the handler was called %d times in the redrive, want twice for the connections that it lost, and once", got)
	}
	if unavailable, retried := told.unavailable.Load(), told.retried.Load(); unavailable != 2 || retried != 0 {
		t.Errorf("hooks were told of %d outages and %d failures, want 2 and none", unavailable, retried)
	}
}

// A tally counts what hooks are told.
type tally struct{ unavailable, retried atomic.Int32 }

func (t *tally) OnUnavailable(context.Context, inbox.Info) { t.unavailable.Add(1) }
func (t *tally) OnRetried(context.Context, inbox.Info)     { t.retried.Add(1) }

// TestAProcessThatDiedIsFollowed: its lease ends, and another goes on; but not
// for ever, where each process dies of the same letter.
func TestAProcessThatDiedIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	w.plan.fail(1, 1)
	cfg := w.config()
	cfg.MaxAttempts = 1
	w.start(cfg)
	w.produce(w.event("a", 0), w.event("b", 1))
	w.settled(2)
	// As a process leaves letters that has died: leased, with a try begun.
	w.exec("update inbox_dead set starts = 0, redrive_at = now() + interval '1 second' where ordering_key = 'thing/a'")
	w.exec("update inbox_dead set starts = 1, redrive_at = now() + interval '1 second' where ordering_key = 'thing/b'")
	w.settled(2)
	equal(t, "effects of a", w.effects("a"), []int{0})
	l := w.list(inbox.Filter{})
	if len(l) != 1 || l[0].OrderingKey != "thing/b" || l[0].State != inbox.StateDead || !strings.Contains(l[0].Error, "without a result") {
		t.Errorf("letters = %+v, want b's, dead because 1 try ended without a result", l)
	}
	if got := w.plan.called(1); got != 1 {
		t.Errorf("b's handler was called %d times, want 1", got)
	}
}

// TestATypeWithoutHandlerDoesNotVanish: a redriven event that the process has
// no handler for is dead again, although such events from Kafka are skipped.
func TestATypeWithoutHandlerDoesNotVanish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	w.start(w.config())
	w.produce(w.event("a", 0))
	w.settled(1)
	l := w.list(inbox.Filter{})[0]
	if _, err := w.letters().Edit(t.Context(), l.ID, inbox.Edit{SetHeaders: []kgo.RecordHeader{{Key: "ce_type", Value: []byte("Unheard")}}}); err != nil {
		t.Fatal(err)
	}
	w.redrive(inbox.Redrive{Filter: inbox.Filter{Type: "Unheard"}})
	w.settled(1)
	if l := w.list(inbox.Filter{}); len(l) != 1 || !strings.Contains(l[0].Error, "no handler for this type") {
		t.Errorf("letters = %+v, want one that says that there is no handler", l)
	}
}

// TestNotices: redrives one after the other begin at once, where looking alone
// would take five seconds for each.
func TestNotices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.start(w.config())
	w.produce(w.event("warm", 1000))
	w.settled(1)
	begun := time.Now()
	for n := range 6 {
		w.plan.fail(n, 1)
		w.produce(w.event("a", n))
		w.settled(n + 2)
		w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
		w.settled(n + 2)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("6 redrives took %v", took)
	}
	equal(t, "effects", w.effects("a"), []int{0, 1, 2, 3, 4, 5})
}

// TestWithoutNotices: a redrive whose notice is lost is found by looking.
func TestWithoutNotices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	w.start(w.config())
	w.produce(w.event("a", 0))
	w.settled(1)
	devstacktest.Wait(t, "the connection that listens to be ended", limit, func() bool {
		return w.is(`select count(*) > 0 from (select pg_terminate_backend(pid, 5000) from pg_stat_activity
			where datname = current_database() and query = 'listen inbox_dead') as ended`)
	})
	w.exec("update inbox_dead set redrive_at = now()")
	w.settled(1)
	equal(t, "effects", w.effects("a"), []int{0})
}
