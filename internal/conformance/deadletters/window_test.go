package deadletters_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

const day = 24 * time.Hour

func (w *world) window() *inbox.Window {
	w.t.Helper()
	window, err := inbox.NewWindow(inbox.WindowConfig{Pool: w.pool, Brokers: w.brokers})
	if err != nil {
		w.t.Fatal(err)
	}
	return window
}

func (w *world) keep() inbox.Kept {
	w.t.Helper()
	kept, err := w.window().Keep(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return kept
}

// commit sets the offset of a group.
func (w *world) commit(group string, partition int32, offset int64) {
	w.t.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(w.topic, partition, offset, -1)
	// A broker that has just made the topic may not know it yet.
	devstacktest.Wait(w.t, "the offset to be taken", limit, func() bool {
		return kadm.NewClient(w.client).CommitAllOffsets(w.t.Context(), group, offsets) == nil
	})
}

// known waits until Kafka answers for the groups, which a broker that has just
// started does not.
func (w *world) known(groups ...string) {
	w.t.Helper()
	for _, group := range groups {
		devstacktest.Wait(w.t, "the coordinator of "+group, limit, func() bool {
			_, err := kadm.NewClient(w.client).FetchOffsets(w.t.Context(), group)
			return err == nil
		})
	}
}

const insertHandled = `insert into inbox (consumer_group, event_id, event_time, topic, partition, "offset", handled_at) values ($1, $2, $3, $4, $5, $6, $7)`

// handled notes an event as handled.
func (w *world) handled(group, id string, event time.Time, partition int32, offset int64, at time.Time) {
	w.t.Helper()
	w.exec(insertHandled, group, id, event, w.topic, partition, offset, at)
}

// oldPartition makes a partition for a day long past and gives its name.
func (w *world) oldPartition(at time.Time) string {
	w.t.Helper()
	from := at.UTC().Truncate(day)
	name := "inbox_p" + from.Format("20060102")
	w.exec(fmt.Sprintf("create table %s partition of inbox for values from ('%s') to ('%s')", name, from.Format(time.RFC3339), from.Add(day).Format(time.RFC3339)))
	return name
}

func (w *world) held(kept inbox.Kept, name string) string {
	for _, h := range kept.Held {
		if h.Partition == name {
			return h.Reason
		}
	}
	return ""
}

// TestAPartitionIsDroppedOncePassed: not while one group has not committed
// behind its last event in one topic partition, whatever the other groups did.
func TestAPartitionIsDroppedOncePassed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	other := devstacktest.Name(t)
	w.known(w.group, other)
	old := time.Now().Add(-20 * day)
	name := w.oldPartition(old)
	w.handled(w.group, "1", old, 0, 10, old)
	w.handled(w.group, "2", old, 1, 7, old)
	w.handled(other, "1", old, 0, 12, old)
	stays := func(step, reason string) {
		t.Helper()
		kept := w.keep()
		if got := w.held(kept, name); !strings.Contains(got, reason) || len(kept.Dropped) != 0 {
			t.Errorf("%s: kept %+v, want %s held because %s", step, kept, name, reason)
		}
		if n := collect[int](w, "select count(*) from inbox")[0]; n != 3 {
			t.Fatalf("%s: %d rows, want 3", step, n)
		}
	}
	stays("nothing committed", "has committed no offset")
	w.commit(w.group, 0, 11)
	w.commit(w.group, 1, 7) // the next to come is the one that is here
	w.commit(other, 0, 13)
	stays("one partition not passed", "group "+w.group+" has committed offset 7 of "+w.topic+"/1")
	w.commit(w.group, 1, 8)
	w.commit(other, 0, 12)
	stays("the other group not passed", "group "+other+" has committed offset 12")
	w.commit(other, 0, 13)
	if kept := w.keep(); !slices.Equal(kept.Dropped, []string{name}) || len(kept.Held) != 0 {
		t.Errorf("all passed: kept %+v, want %s dropped", kept, name)
	}
	if w.is("select to_regclass($1) is not null", name) || w.is("select exists (select from inbox)") {
		t.Error("the partition or a row of it is still there")
	}
}

// TestTheWindowCountsFromTheHandling: an old event that was handled within the
// window is recognised, passed or not.
func TestTheWindowCountsFromTheHandling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.commit(w.group, 0, 1000)
	old := time.Now().Add(-20 * day)
	name := w.oldPartition(old)
	w.handled(w.group, "1", old, 0, 10, old)
	w.handled(w.group, "2", old, 0, 11, time.Now().Add(-6*day))
	if kept := w.keep(); !strings.Contains(w.held(kept, name), "handled an event") || len(kept.Dropped) != 0 {
		t.Errorf("kept %+v, want %s held", kept, name)
	}
	w.exec("update inbox set handled_at = now() - interval '8 days'")
	if kept := w.keep(); !slices.Equal(kept.Dropped, []string{name}) {
		t.Errorf("kept %+v, want %s dropped", kept, name)
	}
}

// TestTheDefaultPartitionLosesNothing that is needed: what is passed and
// beyond the window goes, row by row; what lies in coming partitions moves.
func TestTheDefaultPartitionLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.commit(w.group, 0, 100)
	now := time.Now()
	old, epoch := now.Add(-20*day), time.Unix(0, 0)
	for _, r := range []struct {
		id     string
		event  time.Time
		offset int64
		at     time.Time
	}{
		{"passed", old, 99, old},
		{"not passed", old, 100, old},
		{"handled lately", old, 5, now.Add(-6 * day)},
		{"no time, passed", epoch, 6, old},
		{"no time, lately", epoch, 7, now},
		{"no time, not passed", epoch, 101, old},
		{"far ahead", now.Add(300 * day), 8, now},
		{"today", now, 9, now},
	} {
		w.handled(w.group, r.id, r.event, 0, r.offset, r.at)
	}
	w.handled("another group", "passed", old, 0, 1, old)
	w.known("another group")
	kept := w.keep()
	if kept.Deleted != 2 || kept.Moved != 1 {
		t.Errorf("kept %+v, want 2 rows deleted and 1 moved", kept)
	}
	got := collect[string](w, `select consumer_group || '/' || event_id from inbox where consumer_group = 'another group'
		union all select event_id from inbox where consumer_group <> 'another group' order by 1`)
	want := []string{"another group/passed", "far ahead", "handled lately", "no time, lately", "no time, not passed", "not passed", "today"}
	if !slices.Equal(got, want) {
		t.Errorf("rows left: %q, want %q", got, want)
	}
	if where := collect[string](w, "select tableoid::regclass::text from inbox where event_id = 'today'"); where[0] != "inbox_p"+now.UTC().Format("20060102") {
		t.Errorf("today's row is in %s", where[0])
	}
	for d := range 4 {
		if name := "inbox_p" + now.UTC().Add(time.Duration(d)*day).Format("20060102"); !slices.Contains(kept.Made, name) {
			t.Errorf("made %q, and not %s", kept.Made, name)
		}
	}
	if again := w.keep(); len(again.Made)+len(again.Dropped) != 0 || again.Moved+again.Deleted != 0 {
		t.Errorf("a second pass did %+v, want nothing", again)
	}
}

// TestARowThatComesMeanwhileIsNotDropped: a handler's transaction is open while
// the window is kept, with a row in a partition that was about to be dropped.
func TestARowThatComesMeanwhileIsNotDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.commit(w.group, 0, 100)
	w.keep()
	old := time.Now().Add(-20 * day)
	name := w.oldPartition(old)
	w.handled(w.group, "1", old, 0, 10, old)
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), insertHandled, w.group, "late", old, w.topic, 0, 500, old); err != nil {
		t.Fatal(err)
	}
	if kept := w.keep(); !strings.Contains(w.held(kept, name), "still open") || len(kept.Dropped) != 0 {
		t.Errorf("beside an open transaction: kept %+v, want %s held", kept, name)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept := w.keep(); !strings.Contains(w.held(kept, name), "an event here has 500") {
		t.Errorf("kept %+v, want %s held for offset 500", kept, name)
	}
	if n := collect[int](w, "select count(*) from inbox")[0]; n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// TestARowThatComesBetweenTheLooksIsNotDropped: the partition was found to be
// passed, and then a row is committed while its lock is waited for.
func TestARowThatComesBetweenTheLooksIsNotDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.commit(w.group, 0, 100)
	w.keep()
	old := time.Now().Add(-20 * day)
	name := w.oldPartition(old)
	w.handled(w.group, "1", old, 0, 10, old)
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), insertHandled, w.group, "late", old, w.topic, 0, 500, old); err != nil {
		t.Fatal(err)
	}
	type result struct {
		kept inbox.Kept
		err  error
	}
	done := make(chan result, 1)
	go func() {
		kept, err := w.window().Keep(t.Context())
		done <- result{kept, err}
	}()
	w.wait("the partition's lock to be waited for", "select exists (select from pg_locks where relation = $1::regclass and mode = 'ShareLock' and not granted)", name)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.err != nil || !strings.Contains(w.held(r.kept, name), "an event here has 500") || len(r.kept.Dropped) != 0 {
		t.Errorf("kept %+v, %v, want %s held for offset 500", r.kept, r.err, name)
	}
}

// TestRecognisedInEveryPartition: events that come again have no effect,
// whether their rows are in partitions of their days, moved there, or in the
// default partition; all this beside an inbox that keeps its own window.
func TestRecognisedInEveryPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	cfg := w.config()
	stop := w.start(cfg)
	old := w.event("a", 0)
	old.Headers[5].Value = []byte(time.Now().UTC().Add(-6 * day).Format("2006-01-02T15:04:05.000000Z"))
	older := w.event("a", 1)
	older.Headers[5].Value = []byte("2001-02-03T04:05:06.000000Z")
	timeless := w.event("a", 2)
	timeless.Headers = slices.Delete(timeless.Headers, 5, 6)
	today := w.event("a", 3)
	w.produce(old, older, timeless, today)
	w.settled(4)
	stop()
	equal(t, "effects", w.effects("a"), []int{0, 1, 2, 3})
	if n := collect[int](w, "select count(*) from only inbox_default")[0]; n != 4 {
		t.Fatalf("%d rows in the default partition, want 4 as none was made", n)
	}

	cfg.Window = 0 // 7 days
	w.start(cfg)
	w.wait("the window to be kept", "select count(*) = 2 from only inbox_default")
	w.produce(old, older, timeless, today, w.event("a", 4))
	w.settled(5)
	equal(t, "effects after all came again", w.effects("a"), []int{0, 1, 2, 3, 4})
	for n := range 4 {
		if got := w.plan.called(n); got != 1 {
			t.Errorf("event %d: its handler was called %d times", n, got)
		}
	}
}

// TestWindowConfig: all problems are told together.
func TestWindowConfig(t *testing.T) {
	t.Parallel()
	_, err := inbox.NewWindow(inbox.WindowConfig{Window: -1, Ahead: time.Millisecond})
	for _, want := range []string{"Pool", "Brokers", "Window -1ns", "Ahead 1ms"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}
