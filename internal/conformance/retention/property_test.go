package retention_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/retention"
)

// A history is one run of the property: what was committed, and what Kafka
// was seen to hold.
type history struct {
	*world
	clock     time.Time
	stop      func() // nil while the relay is stopped
	open      pgx.Tx // a transaction that stays open over other actions
	opened    []string
	committed map[string]bool
	published map[string]int
	reader    *kgo.Client
}

// TestNoRowIsDroppedBeforeItIsPublished writes rows at any time, in
// transactions that stay open too, stops and starts the relay, moves the clock
// and makes passes. After each pass every committed row is in Kafka or still
// in a table; at the end every row is in Kafka once, and old tables are gone.
func TestNoRowIsDroppedBeforeItIsPublished(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := flag.Set("rapid.checks", "8"); err != nil { // each takes servers' time
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(t, rt)
		rt.Repeat(map[string]func(*rapid.T){
			"write":        h.write,
			"open or end":  h.transaction,
			"move clock":   h.moveClock,
			"pass":         func(rt *rapid.T) { h.pass(rt) },
			"switch relay": func(*rapid.T) { h.switchRelay() },
			"catch up":     func(*rapid.T) { h.catchUp() },
		})
		h.end(rt)
	})
}

func newHistory(t *testing.T, rt *rapid.T) *history {
	h := &history{
		world: newWorld(t, devstacktest.Database(t)).withRelay(), clock: today,
		committed: map[string]bool{}, published: map[string]int{},
	}
	var err error
	h.reader, err = kgo.NewClient(kgo.SeedBrokers(h.relay.Brokers...), kgo.ConsumeTopics(h.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	h.switchRelay()
	rt.Cleanup(func() { // slots are few, and shrinking makes many histories
		if h.open != nil {
			_ = h.open.Rollback(context.Background())
		}
		if h.stop != nil {
			h.stop()
		}
		h.reader.Close()
		devstacktest.Wait(h.t, "the slot's process to end", 30*time.Second, func() bool {
			return h.query(`select count(active_pid)::text from pg_replication_slots where database = current_database()`) == "0"
		})
		h.exec(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()`)
		h.pool.Close()
	})
	return h
}

// row draws a row's time: mostly about now, sometimes long ago or far ahead.
func (h *history) row(rt *rapid.T) (id outbox.ID, at time.Time) {
	hours := rapid.OneOf(rapid.IntRange(-30, 30), rapid.IntRange(-20*24, 8*24)).Draw(rt, "hours from now")
	return outbox.NewID(), h.clock.Add(time.Duration(hours) * time.Hour)
}

func (h *history) write(rt *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(rt, "rows") {
		id, at := h.row(rt)
		h.exec(h.insert(), id, at)
		h.committed[id.String()] = true
	}
}

// transaction opens a transaction with a row, or ends the open one.
func (h *history) transaction(rt *rapid.T) {
	if h.open == nil {
		tx, err := h.pool.Begin(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		id, at := h.row(rt)
		if _, err := tx.Exec(h.t.Context(), h.insert(), id, at); err != nil {
			h.t.Fatal(err)
		}
		h.open, h.opened = tx, []string{id.String()}
		return
	}
	if rapid.Bool().Draw(rt, "commit") {
		if err := h.open.Commit(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
		for _, id := range h.opened {
			h.committed[id] = true
		}
	} else if err := h.open.Rollback(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.open = nil
}

func (h *history) moveClock(rt *rapid.T) {
	h.clock = h.clock.Add(time.Duration(rapid.IntRange(1, 9*24).Draw(rt, "hours")) * time.Hour)
}

func (h *history) switchRelay() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	} else {
		h.stop = h.start()
	}
}

// catchUp waits until a running relay has confirmed all.
func (h *history) catchUp() {
	if h.stop != nil && h.open == nil {
		h.world.pass()
	}
}

// pass makes a pass and checks that nothing has gone that Kafka lacks. An open
// transaction may keep the pass from its locks, and from nothing else.
func (h *history) pass(rt *rapid.T) retention.Pass {
	p, err := h.retention(h.clock, func(c *retention.Config) { c.LockTimeout = 10 * time.Millisecond }).Step(h.t.Context())
	if _, busy := errors.AsType[*retention.BusyError](err); err != nil && (!busy || h.open == nil) {
		rt.Fatalf("pass at %v: %v", h.clock, err)
	}
	left := h.left()
	missing := func() (ids []string) {
		for id := range h.committed {
			if left[id] == 0 && h.published[id] == 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for id, n := range left {
		if n != 1 {
			rt.Fatalf("row %s is in the tables %d times", id, n)
		}
	}
	// What may be dropped has been acknowledged, so it can be read at once.
	for deadline := time.Now().Add(3 * time.Second); len(missing()) > 0; h.read() {
		if time.Now().After(deadline) {
			rt.Fatalf("rows %v are neither in a table nor in Kafka, after the pass %+v", missing(), p)
		}
	}
	return p
}

// left counts the rows in all tables, attached and detached.
func (h *history) left() map[string]int {
	left := map[string]int{}
	sql := ""
	for _, name := range h.tables() {
		if sql != "" {
			sql += " union all "
		}
		sql += "select id::text from " + pgx.Identifier{name}.Sanitize()
	}
	rows, err := h.pool.Query(h.t.Context(), sql)
	if err != nil {
		h.t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		h.t.Fatal(err)
	}
	for _, id := range ids {
		left[id]++
	}
	return left
}

// read takes what has come from Kafka.
func (h *history) read() {
	ctx, cancel := context.WithTimeout(h.t.Context(), 100*time.Millisecond)
	defer cancel()
	h.reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
		e, err := cloudevent.Decode(r)
		if err != nil {
			h.t.Fatal(err)
		}
		h.published[e.ID]++
	})
}

// end lets the relay catch up, a long time pass, and looks at what is left.
func (h *history) end(rt *rapid.T) {
	if h.open != nil {
		h.transaction(rt)
	}
	if h.stop == nil {
		h.switchRelay()
	}
	h.clock = h.clock.Add(60 * day)
	for range 6 { // a pass takes 16 periods of the default partition at most
		h.pass(rt)
		h.catchUp()
	}
	h.pass(rt)
	for deadline := time.Now().Add(10 * time.Second); len(h.published) < len(h.committed) && time.Now().Before(deadline); {
		h.read()
	}
	h.read()
	for id := range h.committed {
		if n := h.published[id]; n != 1 {
			rt.Errorf("row %s was published %d times", id, n)
		}
	}
	if len(h.published) > len(h.committed) {
		rt.Errorf("%d rows were published, %d committed", len(h.published), len(h.committed))
	}
	if n := len(h.tables()); n != 5 {
		rt.Errorf("60 days later there are the tables %v, want the default partition and 4 more", h.tables())
	}
	if got := h.query(`select count(*)::text from outbox`); got != "0" {
		rt.Error(fmt.Sprintf("60 days later %s rows are left", got))
	}
}
