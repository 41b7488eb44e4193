package demo

import (
	"slices"
	"time"
)

// Latency is how long events took, in milliseconds, each counted from the
// commit that PostgreSQL recorded for its row (pg_xact_commit_timestamp). All
// clocks are this machine's.
type Latency struct {
	// ToKafka ends when the relay's client was told that Kafka has the record
	// on all replicas that are in sync.
	ToKafka Distribution `json:"commitToKafkaAcknowledgedMs"`

	// ToArchive ends at the document's archivedAt, which the archive takes,
	// in whole milliseconds, just before it sends the insert.
	ToArchive Distribution `json:"commitToArchivedAtMs"`

	// Insert is the mean time of an insert command until MongoDB has answered
	// that its documents are durable: to be added to ToArchive.
	Insert float64 `json:"insertDurableMeanMs"`
}

// A Distribution tells of Count values. Percentiles are values that occurred.
type Distribution struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

func latency(all []*passage) Latency {
	var kafka, archive []time.Duration
	for _, p := range all {
		if !p.acknowledged.IsZero() {
			kafka = append(kafka, p.acknowledged.Sub(p.committed))
		}
		if !p.archived.IsZero() {
			archive = append(archive, p.archived.Sub(p.committed))
		}
	}
	return Latency{ToKafka: distribution(kafka), ToArchive: distribution(archive)}
}

func distribution(values []time.Duration) Distribution {
	if len(values) == 0 {
		return Distribution{}
	}
	slices.Sort(values)
	// The smallest value that at least p in a hundred do not exceed.
	at := func(p int) float64 { return milliseconds(values[(len(values)*p+99)/100-1]) }
	return Distribution{Count: len(values), P50: at(50), P99: at(99), Max: at(100)}
}

// milliseconds cuts to what PostgreSQL's clock tells, a microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
