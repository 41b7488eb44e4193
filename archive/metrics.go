package archive

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	written      prometheus.Counter
	redeliveries *prometheus.CounterVec // by kind
	quarantined  *prometheus.CounterVec // by reason
	failures     prometheus.Counter
	batches      prometheus.Histogram
	writeSeconds prometheus.Histogram
	lag          *prometheus.GaugeVec // by topic
	lastCommit   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "archive_documents_written_total", Help: "Events written to MongoDB, each counted once.",
		}),
		redeliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "archive_redeliveries_total", Help: "Events that came again with the content already archived.",
		}, []string{"kind"}),
		quarantined: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "archive_quarantined_total", Help: "Records put into quarantine.",
		}, []string{"reason"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "archive_mongo_failures_total", Help: "Operations of MongoDB that failed and were tried again.",
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "archive_batch_documents", Help: "Documents in one insert command.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		writeSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "archive_write_seconds", Help: "Time from the first attempt of an insert command to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "archive_lag_records", Help: "Records behind the topic's end when its partitions were last read.",
		}, []string{"topic"}),
		lastCommit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "archive_last_commit_timestamp_seconds", Help: "When offsets were last committed.",
		}),
	}
	for _, kind := range []string{redeliveredByConsumer, redeliveredByProducer} {
		m.redeliveries.WithLabelValues(kind) // shown as 0 from the start
	}
	for _, reason := range []string{reasonNotAnEvent, reasonIDConflict, reasonVersionConflict, reasonSequenceConflict, reasonRefused} {
		m.quarantined.WithLabelValues(reason)
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.written, m.redeliveries, m.quarantined, m.failures, m.batches, m.writeSeconds, m.lag, m.lastCommit} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}
