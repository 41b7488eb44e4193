package relay

import (
	"errors"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/seed-048de892/walpost/relay/slot"
)

// A stateCollector gives the metrics that are read off the relay when they
// are asked for.
type stateCollector struct {
	relay *Relay

	info, ready, paused, lag, limit, canaryAge, canaryTrip               *prometheus.Desc
	slotSeen, slotState, slotActive, slotBehind, retained, safe, maxKeep *prometheus.Desc
}

// collect has r show the state of the relay; nil shows it nowhere.
func (r *Relay) collect(registry prometheus.Registerer) error {
	if registry == nil {
		return nil
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return registry.Register(&stateCollector{
		relay:      r,
		info:       desc("relay_info", "1; says what the relay is for.", "source", "slot", "delivery"),
		ready:      desc("relay_ready", "1 while the relay is ready, as /ready says."),
		paused:     desc("relay_paused", "1 while the relay is paused."),
		lag:        desc("relay_lag_seconds", "Age of the oldest commit known of that the stored position does not cover; 0 where there is none, or while not streaming."),
		limit:      desc("relay_buffer_limit_bytes", "Bound of relay_buffered_bytes."),
		canaryAge:  desc("relay_canary_age_seconds", "Age of the canary on its way; 0: none is."),
		canaryTrip: desc("relay_canary_round_trip_seconds", "How long the last canary took from PostgreSQL to the stored position."),
		slotSeen:   desc("relay_slot_seen_timestamp_seconds", "When the slot was last looked at, by PostgreSQL's view of it."),
		slotState:  desc("relay_slot_state", "1 for the state that the slot is in: PostgreSQL's wal_status, or missing.", "state"),
		slotActive: desc("relay_slot_active", "1 while somebody streams from the slot."),
		slotBehind: desc("relay_slot_lag_bytes", "Write-ahead log behind what the slot has confirmed, as PostgreSQL counts."),
		retained:   desc("relay_slot_retained_bytes", "Write-ahead log that PostgreSQL keeps for the slot."),
		safe:       desc("relay_slot_safe_bytes", "Write-ahead log that may be written before the slot may be lost (safe_wal_size). Absent without a bound, or when it is lost."),
		maxKeep:    desc("relay_slot_limit_bytes", "Bound of what PostgreSQL keeps for slots (max_slot_wal_keep_size). Absent without one."),
	})
}

// Describe implements [prometheus.Collector].
func (c *stateCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.info, c.ready, c.paused, c.lag, c.limit, c.canaryAge, c.canaryTrip,
		c.slotSeen, c.slotState, c.slotActive, c.slotBehind, c.retained, c.safe, c.maxKeep,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *stateCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	r := c.relay
	_, paused := r.brake.held()
	gauge(c.info, 1, r.cfg.Source, r.cfg.Slot, string(r.cfg.Delivery))
	gauge(c.ready, bit(r.check() == nil))
	gauge(c.paused, bit(paused))
	gauge(c.limit, float64(r.cfg.MaxBufferBytes))
	var lag time.Duration
	if s := r.metrics.current.Load(); s != nil {
		lag = s.lag()
	}
	gauge(c.lag, lag.Seconds())
	if r.canaries == nil {
		return
	}
	gauge(c.canaryAge, r.canaries.age().Seconds())
	s, trip := r.canaries.seen()
	if trip > 0 {
		gauge(c.canaryTrip, trip.Seconds())
	}
	if s.at.IsZero() {
		return
	}
	gauge(c.slotSeen, float64(s.at.UnixMilli())/1000)
	for _, state := range slotStates() {
		gauge(c.slotState, bit(s.state == state), state)
	}
	if s.state == slotMissing {
		return
	}
	gauge(c.slotActive, bit(s.active))
	gauge(c.slotBehind, float64(s.behind))
	gauge(c.retained, float64(s.retained))
	if s.safe != nil {
		gauge(c.safe, float64(*s.safe))
	}
	if s.keepLimit != nil {
		gauge(c.maxKeep, float64(*s.keepLimit))
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// kindOf names the kind of an error that ended a session, for a metric: one of
// a few words.
func kindOf(err error) string {
	switch {
	case busy(err):
		return "slot_busy"
	case fenced(err):
		return "fenced"
	case isA[*slot.SetupError](err), isA[*TableError](err):
		return "setup"
	case isA[*GapError](err):
		return "gap"
	case isA[*RowError](err), isA[*MessageError](err), isA[*RecordError](err), isA[*TopicError](err), learned(err):
		return "event"
	case isA[*kerr.Error](err):
		return "kafka"
	case isA[*pgconn.PgError](err), isA[*pgconn.ConnectError](err):
		return "postgres"
	case isA[net.Error](err), errors.Is(err, net.ErrClosed):
		return "network"
	}
	return "other"
}
