package deadletters_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestWaitingEventsFollow: what came behind a dead letter, before and during
// the redrive, has its effect behind it and once.
func TestWaitingEventsFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.plan.fail(0, 1)
	w.start(w.config())
	w.produce(w.event("a", 0), w.event("a", 1), w.event("b", 2), w.event("a", 3))
	w.settled(4)
	equal(t, "effects of a behind its dead letter", w.effects("a"), nil)
	equal(t, "effects of b", w.effects("b"), []int{2})

	letters := w.list(inbox.Filter{})
	if len(letters) != 3 || letters[0].State != inbox.StateDead || letters[1].State != inbox.StateWaiting || letters[2].State != inbox.StateWaiting {
		t.Fatalf("letters = %+v, want one dead and two waiting", letters)
	}
	if l := letters[0]; l.Behind != 2 || l.Attempts != 1 || !strings.Contains(l.Error, "planned failure of event 0") || l.OrderingKey != "thing/a" {
		t.Errorf("the dead letter = %+v", l)
	}
	done := w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
	if len(done.Letters) != 1 || done.Letters[0].ID != letters[0].ID || done.Behind != 2 || done.Matched != 3 {
		t.Errorf("redriven = %+v, want the dead letter with 2 behind it, of 3", done)
	}
	w.produce(w.event("a", 4))
	w.settled(5)
	w.produce(w.event("a", 5))
	w.settled(6)
	equal(t, "effects of a", w.effects("a"), []int{0, 1, 3, 4, 5})
	if left := w.list(inbox.Filter{}); len(left) != 0 {
		t.Errorf("letters afterwards: %+v", left)
	}
}

// TestAnEventThatComesAsTheKeyEmpties is not left behind: the last letter of
// its key is handled and gone, but not committed yet.
func TestAnEventThatComesAsTheKeyEmpties(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1)
	w.exec(`create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(1); return null; end'`)
	w.exec(`create constraint trigger slow after insert on effects deferrable initially deferred for each row when (new.n = 0) execute function slow()`)
	w.start(w.config())
	w.produce(w.event("a", 0))
	w.settled(1)
	w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
	w.wait("the commit of the last letter", "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')")
	w.produce(w.event("a", 1))
	w.settled(2)
	equal(t, "effects", w.effects("a"), []int{0, 1})
}

// TestAnEventThatCameWhileTheLockWasWaitedFor follows under every isolation
// level: the transaction that redrives may be older than what stands behind.
func TestAnEventThatCameWhileTheLockWasWaitedFor(t *testing.T) {
	t.Parallel()
	for _, level := range []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.plan.fail(0, 1)
			cfg := w.config()
			cfg.Isolation = level
			w.start(cfg)
			w.produce(w.event("a", 0))
			w.settled(1)
			tx, err := w.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
			if _, err := tx.Exec(t.Context(), `select pg_advisory_xact_lock(hashtextextended($1::text || E'\n' || $2::text, 0))`, w.group, "thing/a"); err != nil {
				t.Fatal(err)
			}
			w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
			const waiting = `select count(*) = $1 from pg_locks where locktype = 'advisory' and not granted
				and database = (select oid from pg_database where datname = current_database())`
			w.wait("the redrive to wait for the lock", waiting, 1)
			// As the consumer puts it there.
			if _, err := tx.Exec(t.Context(), `insert into inbox_dead (consumer_group, ordering_key, state, event_id, event_time, type, topic, partition,
					"offset", record_time, key, header_names, header_values, payload)
				select consumer_group, ordering_key, 'waiting', 'another', event_time, type, topic, partition, "offset" + 1000, record_time, key,
					header_names, header_values, '{"n":1}' from inbox_dead`); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.wait("both to be handled", "select count(*) = 2 from inbox")
			equal(t, "effects", w.effects("a"), []int{0, 1})
			w.wait("no letter to be left", "select count(*) = 0 from inbox_dead")
		})
	}
}

// TestARedriveEnds: one that fails again is tried MaxAttempts times and is
// dead again with its new error; what is behind it goes on waiting.
func TestARedriveEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.plan.fail(0, 1_000_000)
	cfg := w.config()
	cfg.MaxAttempts = 3
	w.start(cfg)
	w.produce(w.event("a", 0), w.event("a", 1))
	w.settled(2)
	if got := w.plan.called(0); got != 3 {
		t.Fatalf("the handler was called %d times before the event was dead, want 3", got)
	}
	for round := 2; round <= 3; round++ {
		w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
		w.settled(round) // with those of the other key before
		letters := w.list(inbox.Filter{})
		if len(letters) != 2 || letters[0].State != inbox.StateDead || letters[0].Attempts != 3*round || letters[1].State != inbox.StateWaiting {
			t.Errorf("after redrive %d: %+v, want dead after %d attempts, and one waiting", round-1, letters, 3*round)
		}
		// Other letters are redriven meanwhile, the dead one is not.
		w.plan.fail(100*round, 3)
		w.produce(w.event("other", 100*round))
		w.settled(round + 1)
		w.redrive(inbox.Redrive{Filter: inbox.Filter{OrderingKey: "thing/other"}})
		w.settled(round + 1)
		if got := w.plan.called(0); got != 3*round {
			t.Errorf("the handler was called %d times after redrive %d, want %d", got, round-1, 3*round)
		}
	}
	equal(t, "effects of other", w.effects("other"), []int{200, 300})
	if got := w.plan.called(1); got != 0 {
		t.Errorf("the waiting event's handler was called %d times", got)
	}
}

// TestTwoRedrivesAtOnce: two redrives and two processes of a group share the
// letters; each is handled once.
func TestTwoRedrivesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	const keys = 60
	for i := range keys {
		w.plan.fail(i, 1)
	}
	w.start(w.config())
	second := w.config()
	second.Pool = w.newPool()
	w.start(second)
	var records []*kgo.Record
	for i := range 2 * keys {
		records = append(records, w.event(fmt.Sprint("k", i%keys), i))
	}
	w.produce(records...)
	w.settled(2 * keys)

	results := make(chan inbox.Redriven, 2)
	failed := make(chan error, 2)
	for range 2 {
		go func() {
			done, err := w.letters().Redrive(t.Context(), inbox.Redrive{Filter: inbox.Filter{Group: w.group}})
			results <- done
			failed <- err
		}()
	}
	seen := make(map[int64]bool)
	for range 2 {
		done := <-results
		if err := <-failed; err != nil {
			t.Error(err)
		}
		for _, l := range done.Letters {
			if seen[l.ID] {
				t.Errorf("letter %d is redriven by both", l.ID)
			}
			seen[l.ID] = true
		}
	}
	if len(seen) != keys {
		t.Errorf("%d letters redriven, want %d", len(seen), keys)
	}
	w.settled(2 * keys)
	for i := range keys {
		equal(t, fmt.Sprint("effects of k", i), w.effects(fmt.Sprint("k", i)), []int{i, i + keys})
		if got := w.plan.called(i); got != 2 {
			t.Errorf("event %d: its handler was called %d times, want 2", i, got)
		}
	}
}

// TestADryRunChangesNothing and tells exactly what the redrive then does.
func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	for n := range 3 {
		w.plan.fail(n, 2)
	}
	w.start(w.config())
	for n, key := range []string{"a", "b", "c", "a"} { // one by one: letters have the order of their failures
		w.produce(w.event(key, n))
		w.settled(n + 1)
	}
	const state = `select md5(string_agg(d::text, '|' order by id)) from inbox_dead d`
	before := collect[string](w, state)[0]
	redrive := inbox.Redrive{Filter: inbox.Filter{Group: w.group}, Rate: 100, Limit: 2}
	dry := redrive
	dry.DryRun = true
	would := w.redrive(dry)
	if after := collect[string](w, state)[0]; after != before {
		t.Error("the dry run changed inbox_dead")
	}
	if len(would.Letters) != 2 || would.Behind != 1 || would.Matched != 4 {
		t.Errorf("the dry run tells %+v, want 2 letters and 1 behind, of 4", would)
	}
	did := w.redrive(redrive)
	for i := range would.Letters {
		if i >= len(did.Letters) || did.Letters[i].ID != would.Letters[i].ID {
			t.Errorf("redriven: %+v, want what the dry run told: %+v", did.Letters, would.Letters)
			break
		}
	}
	w.settled(4)
	for n, want := range []int{2, 2, 1} {
		if got := w.plan.called(n); got != want {
			t.Errorf("event %d: %d calls, want %d", n, got, want)
		}
	}
}

// TestTheRateIsKept: letters begin evenly spread, none before its time.
func TestTheRateIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	const n, rate = 8, 10.0
	for i := range n {
		w.plan.fail(i, 1)
	}
	w.start(w.config())
	for i := range n {
		w.produce(w.event(fmt.Sprint("k", i), i))
	}
	w.settled(n)
	done := w.redrive(inbox.Redrive{Filter: inbox.Filter{Group: w.group}, Rate: rate})
	if len(done.Letters) != n {
		t.Fatalf("%d letters redriven, want %d", len(done.Letters), n)
	}
	for i := 1; i < n; i++ {
		if gap := done.Letters[i].RedriveAt.Sub(done.Letters[i-1].RedriveAt); gap != 100*time.Millisecond {
			t.Errorf("letter %d begins %v after the one before, want 100ms", i, gap)
		}
	}
	w.settled(n)
	at := collect[time.Time](w, "select at from effects order by id")
	for i := range at {
		if due := done.Letters[i].RedriveAt; at[i].Before(due) || at[i].After(due.Add(3*time.Second)) {
			t.Errorf("letter %d was handled at %v, and due at %v", i, at[i], due)
		}
	}
}
