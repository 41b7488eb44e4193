package retention_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/retention"
)

// refused makes a pass that must do nothing but say why, and gives the error.
func (w *world) refused(t *testing.T, change ...func(*retention.Config)) *retention.SlotError {
	t.Helper()
	before := w.tables()
	p, err := w.retention(today.Add(30*day), change...).Step(t.Context())
	e, ok := errors.AsType[*retention.SlotError](err)
	if !ok || e.Hint == "" || e.What == "" {
		t.Fatalf("the pass gave %v, want an error that names the slot and says what to do", err)
	}
	if len(p.Detached)+len(p.Dropped) > 0 {
		t.Errorf("the pass did %+v although %v", p, err)
	}
	after := strings.Join(w.tables(), " ")
	for _, name := range before {
		if !strings.Contains(after, name) {
			t.Errorf("table %s is gone although %v", name, err)
		}
	}
	if len(p.Made) == 0 {
		t.Errorf("the pass made no partitions ahead, want it to in spite of %v", err)
	}
	w.exec(`drop table ` + strings.Join(p.Made, ", "))
	return e
}

// TestNothingIsDroppedWithoutTheSlots makes passes with no slot, with one of
// those named missing, with a slot of another database and with a physical one.
func TestNothingIsDroppedWithoutTheSlots(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.step(today)
	w.write(today)
	a, b, elsewhere, physical := w.topic+"_a", w.topic+"_b", w.topic+"_c", w.topic+"_d"
	other := newWorld(t, devstacktest.Database(t))
	other.slot(elsewhere)

	if e := w.refused(t); e.Slot != "" || !strings.Contains(e.Hint, "start the relay") {
		t.Errorf("without any slot: %v", e)
	}
	w.exec(`select pg_create_physical_replication_slot('` + physical + `', true)`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.dsn)
		if err == nil {
			_, err = conn.Exec(context.Background(), `select pg_drop_replication_slot($1)`, physical)
			err = errors.Join(err, conn.Close(context.Background()))
		}
		if err != nil {
			t.Error(err)
		}
	})
	if e := w.refused(t); e.Slot != "" {
		t.Errorf("with a physical slot only: %v", e)
	}
	w.slot(a)
	named := func(names ...string) func(*retention.Config) {
		return func(c *retention.Config) { c.Slots = names }
	}
	if e := w.refused(t, named(a, b)); e.Slot != b {
		t.Errorf("with %s missing: %v", b, e)
	}
	if e := w.refused(t, named(a, elsewhere)); e.Slot != elsewhere || !strings.Contains(e.What, "no logical slot of database") {
		t.Errorf("with another database's slot named: %v", e)
	}
	if e := w.refused(t, named(physical)); e.Slot != physical {
		t.Errorf("with a physical slot named: %v", e)
	}
	if e := w.refused(t, func(c *retention.Config) { c.Own = b }); e.Slot != b {
		t.Errorf("with its own slot missing: %v", e)
	}

	// The slot that is furthest behind decides, and one not named does not.
	w.slot(b)
	late := today.Add(8 * day)
	w.step(late)
	w.advance(a)
	if p := w.step(late); len(p.Dropped) > 0 || len(p.Waiting) != 1 || p.Waiting[0].Slot != b {
		t.Errorf("with %s behind: %+v", b, p)
	}
	if p := w.step(late, func(c *retention.Config) { c.Own = a }); len(p.Dropped) > 0 || len(p.Waiting) != 1 || p.Waiting[0].Slot != b {
		t.Errorf("its own slot has passed, %s is behind: %+v", b, p)
	}
	if p := w.step(late, named(a), func(c *retention.Config) { c.Own = b }); len(p.Dropped) > 0 || len(p.Waiting) != 1 {
		t.Errorf("its own slot is behind, that named has passed: %+v", p)
	}
	if p := w.step(late, named(a)); len(p.Dropped) != 1 {
		t.Errorf("%s, the only one named, has passed: %+v", a, p)
	}
}

// ownServer starts a server of the test's own, since settings are for all of
// its databases, and gives one.
func ownServer(t *testing.T, version string, settings map[string]string) (dsn string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test needs a real server")
	}
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{
		Dir: devstacktest.Dir(t), NoFsync: true, Version: version, Settings: settings,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	dsn, err = server.CreateDatabase(t.Context(), "own")
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

// TestALostSlotKeepsEverything lets PostgreSQL give a slot up, on the oldest
// and the newest version.
func TestALostSlotKeepsEverything(t *testing.T) {
	for _, version := range []string{"14", "18"} {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t, ownServer(t, version, map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}))
			w.step(today)
			w.write(today)
			w.slot("lost")
			w.exec(`create table filler (b text)`)
			devstacktest.Wait(t, "PostgreSQL to give the slot up", time.Minute, func() bool {
				w.exec(`insert into filler select repeat(md5(n::text), 30) from generate_series(1, 20000) n; select pg_switch_wal(); checkpoint`)
				return w.query(`select wal_status from pg_replication_slots where slot_name = 'lost'`) == "lost"
			})
			if e := w.refused(t); e.Slot != "lost" || !strings.Contains(e.Hint, "pg_drop_replication_slot('lost')") {
				t.Errorf("with a lost slot: %v", e)
			}
		})
	}
}

// TestADetachedTableOfAnotherClusterIsKept restores, as it were, a dump that
// holds a detached table.
func TestADetachedTableOfAnotherClusterIsKept(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.step(today)
	w.slot(w.topic)
	late := today.Add(8 * day)
	w.step(late)
	w.advance(w.topic)
	const table = "outbox_p20251124"
	comment := w.query(`select obj_description('` + table + `'::regclass, 'pg_class')`)
	for what, foreign := range map[string]string{
		"another cluster": strings.Replace(comment, "of system ", "of system 1", 1),
		"no position":     strings.Replace(comment, "/", "-", 1),
	} {
		w.exec(fmt.Sprintf(`comment on table %s is '%s'`, table, foreign))
		p, err := w.retention(late).Step(t.Context())
		if err == nil || !strings.Contains(err.Error(), table) || !strings.Contains(err.Error(), "by hand") || len(p.Dropped) > 0 {
			t.Errorf("%s: %+v, %v; want an error that says what to do", what, p, err)
		}
	}
	// Nor one that says nothing of this table, nor one that is attached again.
	w.exec(fmt.Sprintf(`comment on table %s is '%s'`, table, strings.Replace(comment, "outbox", "another", 1)))
	if p := w.step(late); len(p.Dropped)+len(p.Waiting) > 0 {
		t.Errorf("another table's: %+v", p)
	}
	w.exec(fmt.Sprintf(`comment on table %s is '%s'; alter table outbox attach partition %[1]s for values from ('2025-11-24 00:00+00') to ('2025-11-25 00:00+00')`, table, comment))
	if p := w.step(today); len(p.Dropped)+len(p.Waiting) > 0 {
		t.Errorf("attached again: %+v", p)
	}
}

// TestTheNotedPositionCoversEveryCommit detaches right after a transaction that
// did not wait for its commit to be written out, on a server that is slow to.
func TestTheNotedPositionCoversEveryCommit(t *testing.T) {
	w := newWorld(t, ownServer(t, "", map[string]string{
		"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "wal_buffers": "64MB", "autovacuum": "off",
	}))
	late := today.Add(8 * day)
	w.step(today)
	w.step(late, func(c *retention.Config) { c.Keep = 100 * day }) // makes partitions, so that the next pass need not
	w.slot(w.topic)
	w.write(today)
	var end string
	var unwritten bool
	err := w.pool.QueryRow(t.Context(), `select pg_current_wal_insert_lsn()::text, pg_current_wal_insert_lsn() > pg_current_wal_lsn()`).Scan(&end, &unwritten)
	if err != nil {
		t.Fatal(err)
	}
	if !unwritten {
		t.Error("the commit has been written out already: the test shows nothing")
	}
	if p := w.step(late); len(p.Dropped) > 0 {
		t.Fatalf("the pass did %+v, and the slot has passed nothing", p)
	}
	_, rest, _ := strings.Cut(w.query(`select obj_description('outbox_p20251124'::regclass, 'pg_class')`), "must pass ")
	noted, _, _ := strings.Cut(rest, " ")
	if w.query(`select ($1::pg_lsn >= $2::pg_lsn)::text`, noted, end) != "true" {
		t.Errorf("noted %s, the commit ended at %s", noted, end)
	}
}
