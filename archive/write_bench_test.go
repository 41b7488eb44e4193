package archive

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// benchRecords gives n new events of about 400 bytes.
func benchRecords(from, n int) []*kgo.Record {
	var records []*kgo.Record
	for i := from; i < from+n; i++ {
		e := sampleEvent()
		e.ID, e.Subject, e.Sequence = fmt.Sprintf("%036d", i), fmt.Sprint(i), int64(i+1)
		e.Data = fmt.Appendf(nil, `{"id":"%036d","email":"ada@example.org","name":"Ada Lovelace","balance":1234.56,"note":"%s"}`, i, strings.Repeat("x", 280))
		records = append(records, cloudevent.Record("user.created", &e))
	}
	return records
}

// BenchmarkDocument is the client's own work for one document: decode the
// record, append the document, its hash and eventData to the command.
func BenchmarkDocument(b *testing.B) {
	records := benchRecords(0, 1000)
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	w := &writer{metrics: m, log: slog.New(slog.DiscardHandler), cfg: Config{BatchBytes: maxBatchBytes}, maxDocuments: 1e6}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i%len(records) == 0 {
			w.events.begin(eventsCollection)
		}
		r := records[i%len(records)]
		event, err := cloudevent.Decode(r)
		if err == nil {
			err = w.addEvent(&w.events, &event, r, archivedAt, true)
		}
		if err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkWrite writes batches of 1,000 to a real server, by the writer and
// by the driver's InsertMany, each with new events. ns/op is for a batch.
func BenchmarkWrite(b *testing.B) {
	const size = 1000
	setUp := func(b *testing.B) *writer {
		uri, database := devstacktest.Mongo(b)
		client, err := Connect(uri)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { disconnect(b.Context(), client) })
		m, err := newMetrics(prometheus.NewRegistry())
		if err != nil {
			b.Fatal(err)
		}
		cfg, err := Config{Brokers: []string{"unused:1"}, MongoURI: uri, Database: database}.withDefaults()
		if err != nil {
			b.Fatal(err)
		}
		w := &writer{db: client.Database(database), metrics: m, log: cfg.Log, cfg: cfg}
		if err := w.prepare(b.Context()); err != nil {
			b.Fatal(err)
		}
		return w
	}
	b.Run("writer", func(b *testing.B) {
		w := setUp(b)
		for n := 0; b.Loop(); n += size {
			b.StopTimer()
			records := benchRecords(n, size)
			b.StartTimer()
			if err := w.write(b.Context(), records); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*size/b.Elapsed().Seconds(), "docs/s")
	})
	b.Run("insertMany", func(b *testing.B) {
		w := setUp(b)
		for n := 0; b.Loop(); n += size {
			b.StopTimer()
			records := benchRecords(n, size)
			b.StartTimer()
			docs := make([]any, 0, size)
			for _, r := range records {
				e, err := cloudevent.Decode(r)
				if err != nil {
					b.Fatal(err)
				}
				raw, _, err := w.enc.appendDocument(nil, &e, r, archivedAt, true)
				if err != nil {
					b.Fatal(err)
				}
				docs = append(docs, bson.Raw(raw))
			}
			if _, err := w.db.Collection(eventsCollection).InsertMany(b.Context(), docs, options.InsertMany().SetOrdered(false)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)*size/b.Elapsed().Seconds(), "docs/s")
	})
}
