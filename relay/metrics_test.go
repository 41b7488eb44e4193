package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/slot"
)

// TestCountingARecordAllocatesNothing, also where topics take turns, nor does
// looking after a transaction and a message while nothing is paused.
func TestCountingARecordAllocatesNothing(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &session{brake: new(brake)}
	ctx := context.Background()
	// The first of a topic, and of a session, allocates: AllocsPerRun calls
	// once before it counts.
	allocations := testing.AllocsPerRun(1000, func() {
		for _, topic := range []string{"user.created", "user.created", "user.updated"} {
			m.published(topic, 400, time.Millisecond)
			s.brake.wait(ctx)
			s.spot(pgoutput.Begin{FinalLSN: 1})
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations for three records", allocations)
	}
}

func BenchmarkCountingARecord(b *testing.B) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.published("user.created", 400, time.Millisecond)
	}
}

func TestErrorsHaveAKind(t *testing.T) {
	t.Parallel()
	tests := map[string]error{
		"slot_busy": &pgconn.PgError{Code: slot.CodeBusy},
		"fenced":    kerr.ProducerFenced,
		"setup":     &slot.SetupError{},
		"gap":       &GapError{},
		"event":     &RecordError{Err: kerr.MessageTooLarge},
		"kafka":     kerr.NotEnoughReplicas,
		"postgres":  &pgconn.PgError{Code: "57P01"},
		"network":   &net.OpError{Op: "read", Err: errors.New("connection reset by peer")},
		"other":     errors.New("no idea"),
	}
	for want, err := range tests {
		if got := kindOf(fmt.Errorf("publish: %w", err)); got != want {
			t.Errorf("kindOf(%v) = %s, want %s", err, got, want)
		}
	}
}
