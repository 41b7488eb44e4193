package retention_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/retention"
)

// slack is what a busy machine may add to a wait.
const slack = 1500 * time.Millisecond

// writers write single events at at until stop is called, which gives how many
// they wrote and how long the slowest took.
func (w *world) writers(n int, at func() time.Time) (stop func() (written int64, slowest time.Duration)) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var group sync.WaitGroup
	var written, slowest atomic.Int64
	for range n {
		group.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				// Not ctx: a cancelled insert may be committed.
				if _, err := w.pool.Exec(w.t.Context(), w.insert(), outbox.NewID(), at()); err != nil {
					w.t.Errorf("a writer: %v", err)
					return
				}
				written.Add(1)
				for took := int64(time.Since(began)); ; {
					old := slowest.Load()
					if took <= old || slowest.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	return func() (int64, time.Duration) {
		cancel()
		group.Wait()
		return written.Load(), time.Duration(slowest.Load())
	}
}

// TestWritersDoNotQueueBehindALongTransaction makes passes while a transaction
// holds the locks that they need: to detach, and to move rows.
func TestWritersDoNotQueueBehindALongTransaction(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.slot(w.topic)
	w.step(today)
	w.write(today.Add(20 * day)) // into the default partition
	long, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback(context.Background()) }()
	if _, err := long.Exec(t.Context(), w.insert(), outbox.NewID(), today.Add(20*day)); err != nil {
		t.Fatal(err)
	}
	release := time.AfterFunc(30*time.Second, func() { _ = long.Rollback(context.Background()) }) // should a pass wait for it
	defer release.Stop()

	stop := w.writers(4, func() time.Time { return today.Add(day) })
	const lockTimeout = 100 * time.Millisecond
	p, err := w.retention(today.Add(20*day), func(c *retention.Config) { c.LockTimeout = lockTimeout }).Step(t.Context())
	written, slowest := stop()
	busy, ok := errors.AsType[*retention.BusyError](err)
	if !ok || !strings.Contains(busy.Error(), "pg_stat_activity") || len(p.Detached) > 0 {
		t.Errorf("the pass gave %+v and %v, want it to be busy and to say how to see with whom", p, err)
	}
	if slowest > lockTimeout+slack || written == 0 {
		t.Errorf("the slowest of %d writers' inserts took %v, want no more than the lock timeout of %v", written, slowest, lockTimeout)
	}
	t.Logf("%d inserts beside the pass, the slowest took %v", written, slowest)

	if err := long.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := w.step(today.Add(20 * day)); len(p.Detached) == 0 || p.Moved == 0 {
		t.Errorf("the pass after it did %+v, want partitions detached and rows moved", p)
	}
}

// TestWritersIntoTheDefaultPartitionAreNotRefused makes the partition of the
// time at which writers write, and so moves their rows away beneath them.
func TestWritersIntoTheDefaultPartitionAreNotRefused(t *testing.T) {
	for round := range 5 {
		w := newWorld(t, devstacktest.Database(t))
		stop := w.writers(8, time.Now)
		devstacktest.Wait(t, "rows to move", time.Minute, func() bool { return w.query(`select (count(*) > 500)::text from outbox`) == "true" })
		p := w.step(time.Now())
		written, slowest := stop()
		if got := w.query(`select count(*)::text from outbox`); got != fmt.Sprint(written) || p.Moved == 0 {
			t.Errorf("round %d: %s rows in the table after %d were moved, %d were written", round, got, p.Moved, written)
		}
		if got := w.query(`select count(*)::text from outbox_default`); got != "0" {
			t.Errorf("round %d: %s rows are left in the default partition", round, got)
		}
		if limit := 200*time.Millisecond + 2*time.Second; slowest > limit+slack {
			t.Errorf("round %d: the slowest insert took %v, want at most %v", round, slowest, limit)
		}
		t.Logf("moved %d of %d rows beneath 8 writers, the slowest insert took %v", p.Moved, written, slowest)
	}
}

// TestRunnersSideBySide lets several work on one table at once, with writers.
func TestRunnersSideBySide(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.slot(w.topic)
	clock := today
	want := 0
	for round := range 4 {
		stop := w.writers(2, func() time.Time { return clock.Add(-time.Hour) })
		var group sync.WaitGroup
		var mu sync.Mutex
		var all retention.Pass
		for range 3 {
			group.Go(func() {
				p, err := w.retention(clock).Step(t.Context())
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				mu.Lock()
				defer mu.Unlock()
				all.Made, all.Detached, all.Dropped = append(all.Made, p.Made...), append(all.Detached, p.Detached...), append(all.Dropped, p.Dropped...)
			})
		}
		group.Wait()
		written, _ := stop()
		want += int(written)
		for what, names := range map[string][]string{"made": all.Made, "detached": all.Detached, "dropped": all.Dropped} {
			if slices.Sort(names); len(slices.Compact(slices.Clone(names))) != len(names) {
				t.Errorf("round %d: %s twice: %v", round, what, names)
			}
		}
		if len(all.Made) == 0 {
			t.Errorf("round %d: nothing was made", round)
		}
		clock = clock.Add(6 * day)
	}
	tables, sum := w.tables(), "0"
	for _, name := range tables {
		sum += " + (select count(*) from " + pgx.Identifier{name}.Sanitize() + ")"
	}
	if got := w.query(`select (` + sum + `)::text`); got != fmt.Sprint(want) {
		t.Errorf("%s rows in %v, want the %d written: the slot has passed none", got, tables, want)
	}
}

// TestALargeDefaultPartitionIsRefusedAtOnce does not make writers wait for what
// would not be done in time.
func TestALargeDefaultPartitionIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.exec(fmt.Sprintf(`insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload, created_at)
		select gen_random_uuid(), 't', 't', '1', 'T', repeat('x', 1000)::bytea, '%s' from generate_series(1, 2000)`, today.Format(time.RFC3339)))
	p, err := w.retention(today, func(c *retention.Config) { c.HoldTimeout = time.Millisecond }).Step(t.Context())
	setup, ok := errors.AsType[*retention.SetupError](err)
	if !ok || !strings.Contains(setup.Hint, "docs/operations.md") || len(p.Made) > 0 {
		t.Fatalf("the pass made %v and gave %v, want it to refuse and to say what to do", p.Made, err)
	}
	if p := w.step(today); p.Moved != 2000 {
		t.Errorf("with the default hold %d rows were moved, want 2000", p.Moved)
	}
}

// TestWhatIsInTheWayIsNamed finds a foreign table with a partition's name, and
// an outbox that is not partitioned.
func TestWhatIsInTheWayIsNamed(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.exec(`create table outbox_p20251125 (n int); insert into outbox_p20251125 values (1); create table plain (created_at timestamptz not null)`)
	p, err := w.retention(today).Step(t.Context())
	if _, ok := errors.AsType[*retention.SetupError](err); !ok || !strings.Contains(err.Error(), "outbox_p20251125") || !slices.Equal(p.Made, []string{"outbox_p20251124"}) {
		t.Errorf("with a foreign table in the way: %+v, %v", p, err)
	}
	if got := w.query(`select count(*)::text from outbox_p20251125`); got != "1" {
		t.Errorf("the foreign table has %s rows, want its own", got)
	}
	for table, want := range map[string]string{"plain": "not partitioned by range", "nowhere": "there is no table"} {
		_, err := w.retention(today, func(c *retention.Config) { c.Table = pgx.Identifier{table} }).Step(t.Context())
		if _, ok := errors.AsType[*retention.SetupError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("table %s: %v, want %q", table, err, want)
		}
	}
}

// TestALongHoldIsGivenUp makes attaching take long, while writers wait.
func TestALongHoldIsGivenUp(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.exec(`create function slow() returns event_trigger language plpgsql as $$ begin perform pg_sleep(4); end $$;
		create event trigger slow on ddl_command_end when tag in ('ALTER TABLE') execute function slow()`)
	stop := w.writers(4, time.Now)
	p, err := w.retention(time.Now(), func(c *retention.Config) { c.HoldTimeout = 200 * time.Millisecond; c.Ahead = 1 }).Step(t.Context())
	written, slowest := stop()
	if e, ok := errors.AsType[*retention.SetupError](err); !ok || !strings.Contains(e.What, "200ms") || len(p.Made) > 0 {
		t.Errorf("the pass made %v and gave %v, want it to give the long hold up", p.Made, err)
	}
	if limit := 400 * time.Millisecond; slowest > limit+slack || written == 0 {
		t.Errorf("the slowest of %d inserts took %v, want at most %v", written, slowest, limit)
	}
	w.exec(`drop event trigger slow`)
	if p := w.step(time.Now()); fmt.Sprint(p.Moved) != w.query(`select count(*)::text from outbox`) {
		t.Errorf("the next pass moved %d rows, want all", p.Moved)
	}
}
