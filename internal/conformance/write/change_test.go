package write_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// changes writes events that depend on a change: none where no row is changed,
// and the caller's parameters keep their numbers.
func (s *suite) changes(t *testing.T) {
	about := devstacktest.Name(t)
	tx := s.begin(t)
	c := tx.(changer)
	var want []outbox.Event
	for _, n := range []int{1, 3, many} {
		events := make([]outbox.Event, n)
		for i := range events {
			events[i] = s.event(about, int64(n*1000+i))
		}
		for rows, sql := range map[int]string{
			0: `update business set n = n + $1 where n = $2 and false;`,
			1: "insert into business (n) values ($1 + $2::bigint) -- a comment",
			2: `insert into business (n) select $1 + $2::bigint from generate_series(1, 2)`,
		} {
			changed, err := c.change(t.Context(), events, sql, 40, 2)
			must(t, err)
			if changed != (rows > 0) {
				t.Errorf("%d rows changed, told %t", rows, changed)
			}
			if rows > 0 {
				want = append(want, events...)
			}
		}
	}
	bad := s.event(about, 1)
	bad.Type = ""
	if changed, err := c.change(t.Context(), []outbox.Event{bad}, addBusiness, 7); err == nil || changed {
		t.Errorf("with a bad event: changed %t, %v", changed, err)
	}
	got, err := tx.text(t.Context(), `select count(*) filter (where n = 42) || ' ' || count(*) filter (where n = 7) from business where xmin = pg_current_xact_id()::xid`)
	must(t, err)
	if got != "9 0" {
		t.Errorf("rows of the good and the bad changes: %s, want 9 0", got)
	}
	must(t, tx.commit(t.Context()))
	compare(t, s.settle(t, about), want)
}

// TestWithoutATransaction: a change and its events are one statement, and a
// batch is one transaction, where the caller has begun none.
func TestWithoutATransaction(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			conn := connect(t, devstacktest.Database(t), func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode })
			applySchema(t, conn)
			_, err := conn.Exec(t.Context(), `create table business (n bigint check (n < 100))`)
			must(t, err)
			event := outbox.Event{Topic: "t", AggregateType: "a", AggregateID: "1", Type: "T"}
			for _, n := range []int64{1, 100} {
				changed, err := outbox.Writer{}.Change(t.Context(), conn, []outbox.Event{event}, addBusiness, n)
				if good := n < 100; changed != good || (err == nil) != good {
					t.Errorf("Change of %d: changed %t, %v", n, changed, err)
				}
				batch := new(pgx.Batch)
				must(t, outbox.Queue(t.Context(), batch, event))
				batch.Queue(addBusiness, n)
				if err := conn.SendBatch(t.Context(), batch).Close(); (err == nil) != (n < 100) {
					t.Errorf("batch with %d: %v", n, err)
				}
			}
			var rows, events int
			must(t, conn.QueryRow(t.Context(), `select (select count(*) from business), (select count(*) from outbox)`).Scan(&rows, &events))
			if rows != 2 || events != 2 {
				t.Errorf("%d rows and %d events, want 2 and 2: one of a Change and one of a batch", rows, events)
			}
		})
	}
}
