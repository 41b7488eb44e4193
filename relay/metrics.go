package relay

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics outlive sessions. Without a registerer they count all the same.
type metrics struct {
	records  *prometheus.CounterVec
	latency  prometheus.Histogram
	sequence prometheus.Gauge
	letters  *prometheus.CounterVec
	restarts prometheus.Counter

	serverEnd atomic.Uint64           // where the server said its log ends
	current   atomic.Pointer[session] // nil between sessions

	mu     sync.Mutex
	topics map[string]prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_records_published_total", Help: "Records acknowledged by Kafka, by topic.",
		}, []string{"topic"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "relay_commit_to_acknowledged_seconds", Help: "Time from the commit in PostgreSQL to Kafka's acknowledgement, per record.",
			Buckets: []float64{.0005, .001, .002, .003, .005, .0075, .01, .02, .05, .1, .25, .5, 1, 5, 30, 300},
		}),
		sequence: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "relay_position_sequence", Help: "Sequence of the last record covered by the stored position.",
		}),
		letters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_dead_letters_total", Help: "Events that went to the dead-letter topic, by reason; counted when the stored position covers them.",
		}, []string{"reason"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_session_restarts_total", Help: "Sessions that ended by an error and were followed by another.",
		}),
		topics: make(map[string]prometheus.Counter),
	}
	gauge := func(name, help string, value func(*session) float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if s := m.current.Load(); s != nil {
				return value(s)
			}
			return 0
		})
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.records, m.latency, m.sequence, m.letters, m.restarts,
		gauge("relay_streaming", "1 while the relay has the slot and streams.", func(*session) float64 { return 1 }),
		gauge("relay_lag_bytes", "Write-ahead log the server has reported and the stored position does not cover yet.", func(s *session) float64 {
			return float64(max(0, int64(m.serverEnd.Load())-int64(s.saved.Load())))
		}),
		gauge("relay_buffered_bytes", "Bytes of records read and not yet acknowledged.", func(s *session) float64 { return float64(s.budget.inUse()) }),
		gauge("relay_transactions_in_flight", "Transactions read and not yet acknowledged as a whole.", func(s *session) float64 { return float64(s.tracker.inFlight()) }),
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// watch makes s the session that the gauges show, until the returned function
// is called.
func (m *metrics) watch(s *session) (stop func()) {
	m.current.Store(s)
	m.sequence.Set(float64(s.from.Sequence))
	return func() { m.current.CompareAndSwap(s, nil) }
}

func (m *metrics) published(topic string, latency time.Duration) {
	m.mu.Lock()
	counter, ok := m.topics[topic]
	if !ok {
		counter = m.records.WithLabelValues(topic)
		m.topics[topic] = counter
	}
	m.mu.Unlock()
	counter.Inc()
	m.latency.Observe(latency.Seconds())
}
