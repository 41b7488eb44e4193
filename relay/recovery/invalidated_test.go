package recovery_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay"
)

// TestAnInvalidatedSlot has PostgreSQL give the slot up for
// max_slot_wal_keep_size, on the versions that say so in different ways.
func TestAnInvalidatedSlot(t *testing.T) {
	for _, version := range []string{"15", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{
				Dir: filepath.Join(devstacktest.Dir(t), "postgres"), Version: version, NoFsync: true,
				Settings: map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := server.Stop(ctx); err != nil {
					t.Error(err)
				}
			})
			w := newWorld(t, server.DSN)
			stop := w.start()
			w.write(w.event("a", 1))
			w.waitRecords(1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			for v := range int64(20) {
				w.write(w.event("a", v+2))
			}
			devstacktest.Wait(t, "the slot to be lost", 2*time.Minute, func() bool {
				w.exec(`select pg_switch_wal()`)
				w.exec(`checkpoint`)
				var lost bool
				err := w.conn.QueryRow(t.Context(), `select wal_status = 'lost' from pg_replication_slots where database = current_database()`).Scan(&lost)
				return err == nil && lost
			})
			if gap, ok := errors.AsType[*relay.GapError](w.relay().Run(t.Context())); !ok {
				t.Fatalf("relay over a lost slot: %v, want a gap", gap)
			}
			if report := w.recover(true); report.Published != 20 {
				t.Errorf("report %+v, want 20 published", report)
			}
			stop = w.start()
			w.write(w.event("a", 22))
			w.verify(1)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
