package faults

import (
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/outbox"
)

// relayFaults happen to the relay.
func relayFaults() []fault {
	return []fault{
		{name: "relay killed", again: anyNumber, do: func(w *world) {
			for range 5 {
				w.load.burst(100)
				w.flow(50)
				w.relay.Kill()
				w.relay.Start()
			}
		}},
		{name: "relay killed as it starts", again: anyNumber, do: func(w *world) {
			for range 5 {
				w.relay.Kill()
				w.relay.Start()
				w.written(50)
			}
		}},
		// The transaction being published at the stop is begun again.
		{name: "relay stopped cleanly", again: 3, do: func(w *world) {
			for range 3 {
				w.load.burst(100)
				w.flow(50)
				if state := w.relay.End(syscall.SIGTERM); !state.Success() {
					w.t.Errorf("the relay ended with %v", state)
				}
				w.relay.Start()
			}
		}},
		// Longer than PostgreSQL waits for it: it wakes up without a slot.
		{name: "relay stands still", again: anyNumber, hasty: true, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.relay.Signal(syscall.SIGSTOP)
			w.slotFree()
			w.relay.Signal(syscall.SIGCONT)
		}},
		{name: "relay killed between neighbouring commits", again: anyNumber, quiet: true, do: neighbours},
	}
}

// neighbours commits transactions at the same time, so that in the log nothing
// is between the end of a commit and the beginning of the next, and kills the
// relay when it has the first of them: where it goes on is between two.
func neighbours(w *world) {
	for range 8 {
		var all []pgx.Tx
		for i := range writers {
			tx, err := w.pool.Begin(w.t.Context())
			w.must(err)
			b, err := w.load.begin(w.t.Context(), tx, []string{fmt.Sprintf("k%d", i)})
			w.must(err)
			w.must(b.write(w.t.Context(), outbox.Rows, 2, 100))
			w.must(b.finish(w.t.Context()))
			all = append(all, tx)
		}
		before := w.seen.count()
		var commits errgroup.Group
		for _, tx := range all {
			commits.Go(func() error { return tx.Commit(w.t.Context()) })
		}
		w.must(w.seen.reach(before+1, patience, w.relay.Done()))
		w.relay.Kill()
		w.must(commits.Wait())
		w.relay.Start()
		w.must(w.seen.reach(before+2*writers, patience, w.relay.Done()))
	}
}
