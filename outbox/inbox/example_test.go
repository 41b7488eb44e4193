package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/inbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
)

// UserCreated is an event of another service.
type UserCreated struct {
	Email string `json:"email"`
}

// users gives an example a database, the brokers and a topic with records of
// users 1 and 2, those of user 1 twice, as after a crash of their relay.
func users(ctx context.Context, ddl string) (pool *pgxpool.Pool, brokers []string, topic string, done func()) {
	if os.Getenv("WALPOST_TEST_KAFKA") == "" {
		log.Fatal("WALPOST_TEST_KAFKA is not set: run the examples with make test")
	}
	brokers = strings.Split(os.Getenv("WALPOST_TEST_KAFKA"), ",")
	pool, drop, err := exampledb.Open(ctx, ddl)
	if err != nil {
		log.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		log.Fatal(err)
	}
	topic = "example." + outbox.NewID().String()
	create := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, 1, 1
	create.Topics = append(create.Topics, t)
	if _, err := create.RequestWith(ctx, client); err != nil {
		log.Fatal(err)
	}
	var records []*kgo.Record
	for _, id := range []string{"1", "2", "1"} {
		records = append(records, cloudevent.Record(topic, &cloudevent.Event{
			ID: "0190163d-8694-739b-aea5-966c26f8ad9" + id, Source: "userdb", Type: "UserCreated",
			AggregateType: "user", Subject: id, AggregateVersion: 1,
			Time: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC), Data: []byte(`{"email":"user` + id + `@example.com"}`),
		}))
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
	return pool, brokers, topic, func() {
		remove := kmsg.NewPtrDeleteTopicsRequest()
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &topic
		remove.TopicNames, remove.Topics = []string{topic}, append(remove.Topics, t)
		_, _ = remove.RequestWith(context.WithoutCancel(ctx), client)
		client.Close()
		drop()
	}
}

// The handler's row and the mark that the event was handled are one
// transaction: the record that comes twice has one effect.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	pool, brokers, topic, done := users(ctx, `create table welcome (email text)`)
	defer done()

	in, err := inbox.New(inbox.Config{Brokers: brokers, Group: topic, Pool: pool, Hooks: []inbox.Hook{stopAfter{3, cancel}}})
	if err != nil {
		log.Fatal(err)
	}
	created := outbox.Typed[UserCreated]{Name: "UserCreated", Topic: topic, AggregateType: "user"}
	err = inbox.Handle(in, created, func(ctx context.Context, tx pgx.Tx, e inbox.Received[UserCreated]) error {
		_, err := tx.Exec(ctx, `insert into welcome (email) values ($1)`, e.Value.Email)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := in.Run(ctx); err != nil { // until ctx ends
		log.Fatal(err)
	}

	var emails string
	if err := pool.QueryRow(context.Background(), `select string_agg(email, ' ' order by email) from welcome`).Scan(&emails); err != nil {
		log.Fatal(err)
	}
	fmt.Println(emails)
	fmt.Println(in.Stats().Handled, "handled,", in.Stats().Duplicates, "recognised")
	// Output:
	// user1@example.com user2@example.com
	// 2 handled, 1 recognised
}

// stopAfter is a hook that stops the example when all records have been met.
type stopAfter struct {
	records int64
	stop    context.CancelFunc
}

func (s stopAfter) OnHandled(_ context.Context, e inbox.Info)   { s.at(e) }
func (s stopAfter) OnDuplicate(_ context.Context, e inbox.Info) { s.at(e) }
func (s stopAfter) OnDead(_ context.Context, e inbox.Info)      { s.at(e) }

func (s stopAfter) at(e inbox.Info) {
	if e.Offset == s.records-1 {
		s.stop()
	}
}

// An event whose handler gives a permanent error is a dead letter at once, and
// its redelivery is recognised; other keys go on.
func ExamplePermanent() {
	ctx, cancel := context.WithCancel(context.Background())
	pool, brokers, topic, done := users(ctx, ``)
	defer done()

	in, err := inbox.New(inbox.Config{Brokers: brokers, Group: topic, Pool: pool, Concurrency: 1, Hooks: []inbox.Hook{stopAfter{3, cancel}}})
	if err != nil {
		log.Fatal(err)
	}
	created := outbox.Typed[UserCreated]{Name: "UserCreated", Topic: topic, AggregateType: "user"}
	err = inbox.Handle(in, created, func(_ context.Context, _ pgx.Tx, e inbox.Received[UserCreated]) error {
		if e.Subject == "1" {
			return inbox.Permanent(errors.New("no such mailbox"))
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := in.Run(ctx); err != nil {
		log.Fatal(err)
	}

	page, err := inbox.DeadLetters{DB: pool}.List(context.Background(), inbox.Filter{}, 0, 0)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range page.Letters {
		fmt.Println(l.OrderingKey, l.State, l.Attempts, l.Error)
	}
	// Output: user/1 dead 1 no such mailbox
}

// Without PostgreSQL the handler brings its own idempotence.
func ExampleHandleFunc() {
	ctx, cancel := context.WithCancel(context.Background())
	_, brokers, topic, done := users(ctx, ``)
	defer done()

	in, err := inbox.New(inbox.Config{Brokers: brokers, Group: topic, Concurrency: 1, Hooks: []inbox.Hook{stopAfter{3, cancel}}})
	if err != nil {
		log.Fatal(err)
	}
	created := outbox.Typed[UserCreated]{Name: "UserCreated", Topic: topic, AggregateType: "user"}
	cache := make(map[string]string) // one worker: no lock
	err = inbox.HandleFunc(in, created, func(_ context.Context, e inbox.Received[UserCreated]) error {
		cache[e.Subject] = e.Value.Email // the same however often
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := in.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(cache)
	// Output: map[1:user1@example.com 2:user2@example.com]
}
