// Package archive keeps every record of Kafka in MongoDB: once, unchanged, and
// before its offset is committed.
//
// An [Archive] consumes and writes; a [Store] reads. A record that is a
// CloudEvent becomes a document of the collection "events", any other is kept
// raw in "quarantine" with the reason. docs/formats/mongodb.md describes both.
package archive

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// An Archive moves records from Kafka to MongoDB.
type Archive struct {
	cfg     Config
	metrics *metrics
	mongo   atomic.Pointer[mongo.Client] // while Run runs
	kafka   atomic.Pointer[kgo.Client]   // while Run consumes
}

// New checks cfg and fills in its defaults. It starts nothing and connects to
// nothing. All problems of cfg are reported together.
func New(cfg Config) (*Archive, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure the archive: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the archive's metrics: %w", err)
	}
	return &Archive{cfg: cfg, metrics: m}, nil
}

// Run archives until ctx ends or it meets an error that trying again does not
// mend, and returns after every goroutine it started has returned. Ending ctx
// is the normal way to stop and yields nil; records read but not yet written
// are then read again by the next run. Run it once at a time.
//
// While MongoDB or Kafka does not answer, Run waits and tries again. It gives
// up where MongoDB refuses for a lasting reason: it lacks a right, or holds
// events that break an index.
func (a *Archive) Run(ctx context.Context) error {
	client, err := Connect(a.cfg.MongoURI)
	if err != nil {
		return err
	}
	defer func() {
		a.mongo.Store(nil)
		disconnect(ctx, client)
	}()
	a.mongo.Store(client)
	w := &writer{db: client.Database(a.cfg.Database), metrics: a.metrics, log: a.cfg.Log, cfg: a.cfg}
	if err := w.prepare(ctx); err != nil {
		return endedBy(ctx, err)
	}
	consumer, err := newConsumer(a)
	if err != nil {
		return fmt.Errorf("consume from Kafka: %w", err)
	}
	a.kafka.Store(consumer.client)
	defer a.kafka.Store(nil)
	return endedBy(ctx, consumer.run(ctx, w))
}

// endedBy gives err unless it came because ctx has ended.
func endedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed)) {
		return nil
	}
	return err
}

// Ready says why records are not being archived, nil when they are: MongoDB
// answers and the consumer group has taken this member in.
func (a *Archive) Ready(ctx context.Context) error {
	client := a.mongo.Load()
	if client == nil {
		return errors.New("not running")
	}
	if err := client.Ping(ctx, nil); err != nil {
		return fmt.Errorf("MongoDB does not answer: %w", err)
	}
	kafka := a.kafka.Load()
	if kafka == nil {
		return errors.New("not yet consuming")
	}
	if _, generation := kafka.GroupMetadata(); generation >= 0 {
		return nil
	}
	// Without a topic to read there is no group to join.
	if len(kafka.GetConsumeTopics()) > 0 {
		return fmt.Errorf("not yet a member of the consumer group %q", a.cfg.Group)
	}
	if err := kafka.Ping(ctx); err != nil {
		return fmt.Errorf("reach Kafka: %w", err)
	}
	return nil
}

// Connect gives a client for uri with the archive's settings: writes of any
// kind wait for a majority and the journal, and a server that does not answer
// is reported after a few seconds instead of thirty. It does not wait for the
// server. Whoever connects disconnects.
func Connect(uri string) (*mongo.Client, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).
		SetAppName("walpost-archive").
		SetServerSelectionTimeout(3 * time.Second).
		SetConnectTimeout(5 * time.Second).
		SetWriteConcern(durable()))
	if err != nil {
		return nil, fmt.Errorf("connect to MongoDB: %w", err)
	}
	return client, nil
}

func durable() *writeconcern.WriteConcern {
	journal := true
	return &writeconcern.WriteConcern{W: writeconcern.WCMajority, Journal: &journal}
}

// disconnect ends the client's goroutines, also when ctx has ended.
func disconnect(ctx context.Context, client *mongo.Client) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = client.Disconnect(ctx) // it only tells that connections were still in use
}
