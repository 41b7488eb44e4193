package retention_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
	"github.com/seed-048de892/walpost/outbox/retention"
)

// A service, or a job that runs once an hour, makes single passes.
func ExampleRetention_Step() {
	ctx := context.Background()
	pool, done, err := exampledb.Open(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	// In place of a relay, a slot that is moved by hand.
	slot := "example_" + strings.ReplaceAll(outbox.NewID().String(), "-", "")
	if _, err := pool.Exec(ctx, `select pg_create_logical_replication_slot($1, 'pgoutput')`, slot); err != nil {
		log.Fatal(err)
	}
	defer func() { _, _ = pool.Exec(ctx, `select pg_drop_replication_slot($1)`, slot) }()

	clock := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) // leave Now unset, and it is the database's
	r, err := retention.New(retention.Config{
		DB: pool, Keep: 7 * 24 * time.Hour, Slots: []string{slot},
		Now: func() time.Time { return clock },
	})
	if err != nil {
		log.Fatal(err)
	}
	pass := func() {
		p, err := r.Step(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("made:", p.Made)
		fmt.Println("dropped:", p.Dropped)
		for _, w := range p.Waiting {
			fmt.Println("waits for its slot:", w.Table)
		}
	}
	pass()
	clock = clock.Add(8 * 24 * time.Hour)
	pass()
	const move = `select pg_replication_slot_advance($1, pg_current_wal_flush_lsn())`
	if _, err := pool.Exec(ctx, `set synchronous_commit = on; create table flushed ()`); err != nil {
		log.Fatal(err)
	}
	if _, err := pool.Exec(ctx, move, slot); err != nil {
		log.Fatal(err)
	}
	pass()
	// Output:
	// made: [outbox_p20261124 outbox_p20261125 outbox_p20261126 outbox_p20261127]
	// dropped: []
	// made: [outbox_p20261202 outbox_p20261203 outbox_p20261204 outbox_p20261205]
	// dropped: []
	// waits for its slot: outbox_p20261124
	// made: []
	// dropped: [outbox_p20261124]
}

// A daemon runs it beside its own work.
func ExampleRetention_Run() {
	ctx, stop := context.WithCancel(context.Background())
	pool, done, err := exampledb.Open(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	r, err := retention.New(retention.Config{DB: pool, Ahead: 1, Hooks: []retention.Hook{firstPass(stop)}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Run(ctx))
	// Output:
	// partitions made: 2
	// <nil>
}

// firstPass ends the example after one pass.
type firstPass func()

func (stop firstPass) OnPass(_ context.Context, p retention.Pass, err error) {
	if err != nil {
		log.Print(err)
	}
	fmt.Println("partitions made:", len(p.Made))
	stop()
}
