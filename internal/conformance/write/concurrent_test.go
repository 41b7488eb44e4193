package write_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// concurrent lets connections change a few aggregates at once, as services do:
// each reads the version under the row's lock and writes the event of the next
// one, in any mode. Every aggregate's events must arrive without a hole in the
// order of their versions, those of one topic and those of two.
func concurrent(t *testing.T, w *world) {
	const writers, transactions = 6, 60
	about := devstacktest.Name(t)
	conn := connect(t, w.dsn)
	_, err := conn.Exec(t.Context(), `create table aggregates (id text primary key, version bigint not null)`)
	must(t, err)
	_, err = conn.Exec(t.Context(), `insert into aggregates select chr(i), 0 from generate_series(97, 99) i`)
	must(t, err)
	run := func(c *pgx.Conn, random *rand.Rand) error {
		for range transactions {
			tx, err := c.Begin(t.Context())
			if err != nil {
				return err
			}
			m := everyPgxWay(tx).(*multi)
			id := string(rune('a' + random.IntN(3)))
			for range 1 + random.IntN(3) {
				e := w.event(about, 0)
				e.AggregateID, e.Topic = id, w.topics[random.IntN(2)]
				if err := tx.QueryRow(t.Context(), `update aggregates set version = version + 1 where id = $1 returning version`, id).Scan(&e.AggregateVersion); err != nil {
					return err
				}
				if err := m.ways[random.IntN(len(m.ways))].write(t.Context(), []outbox.Event{e}); err != nil {
					return err
				}
			}
			finish := tx.Commit
			if random.IntN(4) == 0 {
				finish = tx.Rollback
			}
			if err := finish(t.Context()); err != nil {
				return err
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range writers {
		c := connect(t, w.dsn, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeExec })
		wg.Go(func() {
			if err := run(c, rand.New(rand.NewPCG(1, uint64(i)))); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	last := make(map[string]int64)
	for _, r := range w.settle(t, about) {
		if r.AggregateVersion != last[r.key]+1 {
			t.Fatalf("aggregate %s: version %d arrived behind %d", r.key, r.AggregateVersion, last[r.key])
		}
		last[r.key]++
	}
	rows, err := conn.Query(t.Context(), `select id, version from aggregates`)
	must(t, err)
	var id string
	var version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		if last[id] != version || version == 0 {
			return fmt.Errorf("aggregate %s has version %d, its last event %d", id, version, last[id])
		}
		return nil
	})
	must(t, err)
}
