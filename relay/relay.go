package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// A Relay publishes one outbox.
type Relay struct {
	cfg     Config
	outside outside
	metrics *metrics
	lessons lessons

	canaries *canaries // nil: none
	brake    brake

	streaming atomic.Bool
	lastError atomic.Pointer[error]
}

// New checks cfg and reports every problem of it at once. It starts nothing.
func New(cfg Config) (*Relay, error) {
	cfg, pg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure the relay:\n%w", err)
	}
	metrics, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the relay's metrics: %w", err)
	}
	r := &Relay{cfg: cfg, outside: &servers{cfg: cfg, pg: pg}, metrics: metrics, canaries: newCanaries(cfg, pg, metrics)}
	if err := r.collect(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("register the relay's metrics: %w", err)
	}
	return r, nil
}

// Run publishes until ctx ends, and returns after everything it started has
// returned. Ending ctx is the normal way to stop and gives nil: records on
// their way are then waited for, and what they allow is confirmed.
//
// What passes by itself, a lost connection or a broker that is down, is
// retried without end. An error means that somebody must act: see [GapError],
// [TableError], [RowError], [MessageError], [RecordError], [TopicError] and slot.SetupError. Run may be
// called again after it has returned.
func (r *Relay) Run(ctx context.Context) error {
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	pause := shortest
	stop := r.canaries.start(ctx)
	defer stop()
	for {
		began := time.Now()
		err := r.session(ctx)
		r.streaming.Store(false)
		if ctx.Err() != nil {
			return nil // the stop is why it ended
		}
		r.metrics.failed(err)
		if permanent(err) {
			return err
		}
		r.lastError.Store(&err)
		r.metrics.restarts.Inc()
		if time.Since(began) > time.Minute {
			pause = shortest // it had worked
		}
		switch {
		case busy(err):
			r.cfg.Log.InfoContext(ctx, "slot is busy, waiting for it", slog.String("slot", r.cfg.Slot), slog.Any("error", err))
			pause = min(pause, lockEvery)
		case learned(err):
			r.cfg.Log.WarnContext(ctx, "a record was refused, finding out which", slog.Any("error", err))
			pause = 0
		case fenced(err):
			r.cfg.Log.WarnContext(ctx, "another relay of this source has taken over, or a Kafka transaction took too long; waiting as a standby",
				slog.String("source", r.cfg.Source), slog.Any("error", err))
		default:
			r.cfg.Log.WarnContext(ctx, "session ended, going on from the stored position", slog.Any("error", err), slog.Duration("pause", pause))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = max(shortest, min(2*pause, longest))
	}
}

// Slot is the name of the relay's replication slot, with the default filled
// in.
func (r *Relay) Slot() string { return r.cfg.Slot }

// Ready gives nil while the relay streams and no canary is late, see
// Config.CanaryEvery, and else why not: a [LateError] says where it is stuck.
// A relay that is paused is not ready.
func (r *Relay) Ready(context.Context) error { return r.check() }

func (r *Relay) check() error {
	if since, paused := r.brake.held(); paused {
		return fmt.Errorf("paused since %s", since.UTC().Format(time.RFC3339))
	}
	if r.streaming.Load() {
		return r.canaries.late(r.metrics.current.Load())
	}
	if err := r.lastError.Load(); err != nil {
		return fmt.Errorf("not streaming: %w", *err)
	}
	return errors.New("not streaming yet: waiting for the slot, PostgreSQL or Kafka")
}
