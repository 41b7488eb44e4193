package archive_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// A bench is a topic, a database and what tests do to them.
type bench struct {
	t        *testing.T
	brokers  []string
	uri      string
	database string
	name     string // of the group, and how the topics begin
	topic    string
	kafka    *kgo.Client
	admin    *kadm.Client
	db       *mongo.Database
}

func newBench(t *testing.T) *bench {
	t.Helper()
	uri, database := devstacktest.Mongo(t)
	return newBenchOn(t, uri, database)
}

func newBenchOn(t *testing.T, uri, database string) *bench {
	t.Helper()
	b := &bench{t: t, brokers: devstacktest.Kafka(t), uri: uri, database: database, name: devstacktest.Name(t)}
	var err error
	b.kafka, err = kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kafka.Close)
	b.admin = kadm.NewClient(b.kafka)
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) })
	b.db = client.Database(database)
	b.topic = b.makeTopic("one", 3)
	return b
}

func (b *bench) makeTopic(suffix string, partitions int32) string {
	b.t.Helper()
	topic := b.name + "." + suffix
	if _, err := b.admin.CreateTopic(b.t.Context(), partitions, 1, nil, topic); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _, _ = b.admin.DeleteTopics(context.WithoutCancel(b.t.Context()), topic) })
	return topic
}

// event gives version n of an aggregate.
func (b *bench) event(aggregate string, n int64) *cloudevent.Event {
	return &cloudevent.Event{
		ID: fmt.Sprintf("%s/%s/%d", b.name, aggregate, n), Source: b.name, Type: "Changed", Subject: aggregate,
		Time: time.Date(2026, 1, 1, 0, 0, int(n), 123456000, time.UTC), ContentType: "application/json",
		AggregateType: "thing", AggregateVersion: n, Data: fmt.Appendf(nil, `{"n": %d}`, n),
	}
}

func (b *bench) produce(records ...*kgo.Record) {
	b.t.Helper()
	if err := b.kafka.ProduceSync(b.t.Context(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) produceEvents(events ...*cloudevent.Event) {
	b.t.Helper()
	var records []*kgo.Record
	for _, e := range events {
		records = append(records, cloudevent.Record(b.topic, e))
	}
	b.produce(records...)
}

// A running is an archive at work.
type running struct {
	*archive.Archive
	registry *prometheus.Registry
	cancel   context.CancelFunc
	done     chan error
}

func (b *bench) start(change func(*archive.Config)) *running {
	b.t.Helper()
	registry := prometheus.NewRegistry()
	cfg := archive.Config{
		Brokers: b.brokers, MongoURI: b.uri, Database: b.database,
		Group: b.name, Topics: `^` + b.name + `\.`, TopicsEvery: 200 * time.Millisecond,
		RetryEvery: 200 * time.Millisecond, SessionTimeout: 6 * time.Second,
		Registerer: registry, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	a, err := archive.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	r := &running{Archive: a, registry: registry, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- a.Run(ctx) }()
	b.t.Cleanup(func() { r.stop(b.t) })
	return r
}

// stop ends the run, which must end well.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("Run = %v, want nil after its context ended", err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
}

// until waits for a condition and fails with what it says is missing.
func (b *bench) until(missing func(ctx context.Context) (string, error)) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var what string
	for {
		now, err := missing(ctx)
		switch {
		case err == nil && now == "":
			return
		case err == nil:
			what = now
		case ctx.Err() == nil && !mongo.IsTimeout(err): // else the time is over: what was missing before says more
			what = err.Error()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("after %v: %s", patience, what)
		}
	}
}

func (b *bench) untilCount(collection string, want int64) {
	b.t.Helper()
	b.until(func(ctx context.Context) (string, error) {
		n, err := b.db.Collection(collection).CountDocuments(ctx, bson.D{})
		if err == nil && n < want {
			return fmt.Sprintf("%d of %d documents in %s", n, want, collection), nil
		}
		if err == nil && n > want {
			b.t.Fatalf("%d documents in %s, want %d", n, collection, want)
		}
		return "", err
	})
}

func (b *bench) untilMetric(r *running, line string) {
	b.t.Helper()
	name, _, _ := strings.Cut(line, "{")
	name, _, _ = strings.Cut(name, " ")
	b.until(func(context.Context) (string, error) {
		got := metric(b.t, r.registry, name)
		if !strings.Contains(got, line+"\n") {
			return "want " + line + ", have:\n" + got, nil
		}
		return "", nil
	})
}

// metric gives one metric family as it would be scraped.
func metric(t *testing.T, registry *prometheus.Registry, name string) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if f.GetName() == name {
			if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return text.String()
}

// untilFailure waits until an operation of MongoDB has failed.
func (b *bench) untilFailure(r *running) {
	b.t.Helper()
	b.until(func(context.Context) (string, error) {
		if strings.Contains(metric(b.t, r.registry, "archive_mongo_failures_total"), "archive_mongo_failures_total 0\n") {
			return "no failure has been noticed", nil
		}
		return "", nil
	})
}

// gate puts a gate between the archive and MongoDB.
func (b *bench) gate() *gate {
	b.t.Helper()
	const prefix, suffix = "mongodb://", "/?directConnection=true"
	server, ok1 := strings.CutPrefix(b.uri, prefix)
	server, ok2 := strings.CutSuffix(server, suffix)
	if !ok1 || !ok2 {
		b.t.Skipf("needs a MongoDB at one address without a password, not %s: unset WALPOST_TEST_MONGO to run this test", b.uri)
	}
	g := newGate(b.t, server)
	b.uri = prefix + g.address() + suffix
	return g
}

// committed gives how many records of the bench's topics the group need not
// read again.
func (b *bench) committed(ctx context.Context) (int64, error) {
	offsets, err := b.admin.FetchOffsets(ctx, b.name)
	if err != nil {
		return 0, err
	}
	var n int64
	offsets.Each(func(o kadm.OffsetResponse) { n += max(0, o.At) })
	return n, nil
}

func (b *bench) untilCommitted(want int64) {
	b.t.Helper()
	b.until(func(ctx context.Context) (string, error) {
		n, err := b.committed(ctx)
		if err == nil && n != want {
			return fmt.Sprintf("%d records committed, want %d", n, want), nil
		}
		return "", err
	})
}

// quarantined gives the reasons in quarantine.
func (b *bench) quarantined() (docs []struct {
	ID, Topic, Reason, Detail string
	Key, Value                []byte
	Offset                    int64
},
) {
	b.t.Helper()
	cursor, err := b.db.Collection("quarantine").Find(b.t.Context(), bson.D{})
	if err == nil {
		err = cursor.All(b.t.Context(), &docs)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return docs
}
