package relay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay"
)

// TestAPausedRelayReadsNothingAndKeepsTheSlot pauses in both ways to deliver,
// for several times as long as PostgreSQL waits for a relay that is silent.
func TestAPausedRelayReadsNothingAndKeepsTheSlot(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			f := newFixture(t)
			f.config.Delivery, f.config.SenderTimeout = delivery, time.Second
			registry := prometheus.NewRegistry()
			f.config.Metrics = registry
			r := f.relay(t)
			stop := f.run(t, r)
			f.write(t, f.event("42", 1))
			f.read(t, 1)
			devstacktest.Wait(t, "the event to be stored", 10*time.Second, func() bool { return gauge(t, registry, "relay_position_sequence") == 1 })

			r.Pause()
			r.Pause() // changes nothing
			if err := r.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "paused since") {
				t.Errorf("Ready = %v, want since when it is paused", err)
			}
			if paused := gauge(t, registry, "relay_paused"); paused != 1 {
				t.Errorf("relay_paused = %v", paused)
			}
			var events []outbox.Event
			for i := range 5000 { // more than the sockets hold
				e := f.event("42", int64(i+2))
				e.Payload = []byte(`{"note":"` + strings.Repeat("x", 4000) + `"}`)
				events = append(events, e)
			}
			f.write(t, events...)
			var pid int
			var since string
			look := `select pid, now()::text from pg_stat_replication where pid = (select active_pid from pg_replication_slots where database = current_database())`
			if err := f.conn.QueryRow(t.Context(), look).Scan(&pid, &since); err != nil {
				t.Fatal(err)
			}
			devstacktest.Wait(t, "PostgreSQL to have heard from the relay for four times its patience", 30*time.Second, func() bool {
				var again int
				var later bool
				err := f.conn.QueryRow(t.Context(), `select pid, reply_time > $1::timestamptz + interval '4 s'
					from pg_stat_replication where pid = (select active_pid from pg_replication_slots where database = current_database())`, since).Scan(&again, &later)
				if err != nil || again != pid {
					t.Fatalf("PostgreSQL has hung up on the paused relay: %v, process %d instead of %d", err, again, pid)
				}
				return later
			})
			if bytes, sequence := gauge(t, registry, "relay_buffered_bytes"), gauge(t, registry, "relay_position_sequence"); bytes != 0 || sequence != 1 {
				t.Errorf("paused: %v bytes read, sequence %v stored, want 0 and 1", bytes, sequence)
			}

			r.Resume()
			r.Resume()
			got := f.read(t, len(events)+1)
			stop()
			for i, e := range got {
				if e.Sequence != int64(i+1) || e.AggregateVersion != int64(i+1) {
					t.Fatalf("record %d has sequence %d and version %d", i, e.Sequence, e.AggregateVersion)
				}
			}
		})
	}
}

// TestAPausedRelayStops: pausing is no way to be stuck.
func TestAPausedRelayStops(t *testing.T) {
	f := newFixture(t)
	r := f.relay(t)
	stop := f.run(t, r)
	r.Pause()
	f.write(t, f.event("42", 1))
	stop()
}
