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

	bytes        *prometheus.CounterVec
	transactions *prometheus.CounterVec // of Kafka
	committed    prometheus.Counter     // of transactions
	aborted      prometheus.Counter     // of transactions
	errors       *prometheus.GaugeVec

	began func() // called when a session has begun to stream

	lately atomic.Pointer[topicMetrics] // the one used last
	mu     sync.Mutex
	topics map[string]*topicMetrics
}

// topicMetrics are the children of one topic, so that a record looks up
// nothing where its predecessor went to the same topic.
type topicMetrics struct {
	topic          string
	records, bytes prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_records_published_total", Help: "Records acknowledged by Kafka, by topic.",
		}, []string{"topic"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "relay_commit_to_acknowledged_seconds", Help: "Time from the commit in PostgreSQL to Kafka's acknowledgement, per record.",
			Buckets: []float64{.001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .075, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
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
		topics: make(map[string]*topicMetrics),

		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_bytes_published_total", Help: "Bytes of keys and values of the records acknowledged by Kafka, by topic.",
		}, []string{"topic"}),
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_kafka_transactions_total", Help: "Kafka transactions of exactly-once delivery, by outcome: committed or aborted.",
		}, []string{"outcome"}),
		errors: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "relay_last_error_timestamp_seconds", Help: "When a session last ended by an error of this kind.",
		}, []string{"kind"}),
	}
	// From 0 on: a counter that appears with 1 has not increased for Prometheus.
	for _, reason := range []string{
		reasonRow, reasonEnvelope, reasonMessage, reasonTopicName, reasonTopicMissing, reasonTopicDenied, reasonTooLarge, reasonTimestamp, reasonRefused,
	} {
		m.letters.WithLabelValues(reason)
	}
	m.committed, m.aborted = m.transactions.WithLabelValues("committed"), m.transactions.WithLabelValues("aborted")
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
	for _, c := range []prometheus.Collector{m.bytes, m.transactions, m.errors} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// watch makes s the session that the gauges show, until the returned function
// is called.
func (m *metrics) watch(s *session) (stop func()) {
	m.serverEnd.Store(uint64(s.from.End))
	m.current.Store(s)
	if m.began != nil {
		m.began()
	}
	m.sequence.Set(float64(s.from.Sequence))
	return func() { m.current.CompareAndSwap(s, nil) }
}

// published counts a record that Kafka has. It is for any goroutine and
// allocates nothing but for the first record of a topic.
func (m *metrics) published(topic string, bytes int, latency time.Duration) {
	t := m.lately.Load()
	if t == nil || t.topic != topic {
		t = m.ofTopic(topic)
		m.lately.Store(t)
	}
	t.records.Inc()
	t.bytes.Add(float64(bytes))
	m.latency.Observe(latency.Seconds())
}

func (m *metrics) ofTopic(topic string) *topicMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.topics[topic]
	if !ok {
		t = &topicMetrics{topic: topic, records: m.records.WithLabelValues(topic), bytes: m.bytes.WithLabelValues(topic)}
		m.topics[topic] = t
	}
	return t
}

// failed notes an error that ended a session.
func (m *metrics) failed(err error) {
	m.errors.WithLabelValues(kindOf(err)).SetToCurrentTime()
}
