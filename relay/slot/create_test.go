package slot_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// TestFailoverSlots makes one on the versions that have them, and is told why
// not on one that has not.
func TestFailoverSlots(t *testing.T) {
	for _, version := range []string{"16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			conn, err := pgx.Connect(t.Context(), devstacktest.DatabaseOf(t, version))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			replica, err := wal.Connect(t.Context(), &conn.Config().Config, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = replica.Close(context.Background()) }()
			name := devstacktest.Name(t)
			start, snapshot, err := slot.Export(t.Context(), replica, name, slot.Options{Failover: true})
			if version == "16" {
				if setup, ok := errors.AsType[*slot.SetupError](err); !ok || setup.Hint == "" {
					t.Fatalf("Export on PostgreSQL 16 = %v, want a SetupError with a hint", err)
				}
				return
			}
			if err != nil || start == 0 || snapshot == "" {
				t.Fatalf("Export = %v, %q, %v", start, snapshot, err)
			}
			var failover bool
			if err := conn.QueryRow(t.Context(), "select failover from pg_replication_slots where slot_name = $1", name).Scan(&failover); err != nil || !failover {
				t.Errorf("failover = %t, %v, want true", failover, err)
			}
		})
	}
}

func TestMajor(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int{"17.2 (Debian 17.2-1.pgdg120+1)": 17, "18beta1": 18, "19devel": 19, "14": 14, "": 0, "x": 0} {
		if got := slot.Major(version); got != want {
			t.Errorf("Major(%q) = %d, want %d", version, got, want)
		}
	}
}
