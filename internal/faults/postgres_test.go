package faults

import (
	"syscall"
	"time"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// postgresFaults happen to PostgreSQL.
func postgresFaults() []fault {
	return []fault{
		{name: "PostgreSQL killed", again: anyNumber, outage: true, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.must(w.postgres.Kill())
			w.restartPostgres(w.t)
		}},
		{name: "PostgreSQL killed and the slot falls back", again: anyNumber, outage: true, do: slotFallsBack},
		// The postmaster then ends all others and starts again.
		{name: "walsender killed", again: anyNumber, outage: true, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			pid := w.walsender()
			w.must(syscall.Kill(pid, syscall.SIGKILL))
			devstacktest.Wait(w.t, "another walsender", patience, func() bool {
				var other int
				err := w.pool.QueryRow(w.t.Context(), `select coalesce(max(active_pid), 0) from pg_replication_slots where slot_name = $1`, w.name).Scan(&other)
				return err == nil && other != 0 && other != pid // an error while the server is away
			})
		}},
		{name: "walsender stands still", do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			pid := w.walsender()
			w.must(syscall.Kill(pid, syscall.SIGSTOP))
			defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // also where the wait fails
			w.written(300)
		}},
		{name: "sessions of the relay terminated", again: anyNumber, do: func(w *world) {
			for range 3 {
				w.load.burst(100)
				w.flow(50)
				_, err := w.pool.Exec(w.t.Context(),
					`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name <> 'writers'`)
				w.must(err)
			}
		}},
	}
}

// slotFallsBack kills the relay and then PostgreSQL while the slot on disk is
// behind the one in memory: PostgreSQL forgets what it was told, and only the
// position in Kafka says what is there.
func slotFallsBack(w *world) {
	for range 5 {
		w.load.burst(100)
		w.flow(50)
		before := w.confirmed()
		devstacktest.Wait(w.t, "a confirmation", patience, func() bool { return w.confirmed() > before })
		w.relay.Kill()
		before = w.confirmed()
		w.must(w.postgres.Kill())
		w.restartPostgres(w.t)
		var after lsn.Pos
		devstacktest.Wait(w.t, "PostgreSQL to answer", time.Minute, func() bool { return w.pool.Ping(w.t.Context()) == nil })
		after = w.confirmed()
		w.relay.Start()
		if after < before {
			return
		}
		// A running-transactions record came in between, and the slot was saved.
	}
	w.t.Error("the slot never fell back in five crashes: nothing was tested")
}
