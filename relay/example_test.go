package relay_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
)

// The relay as a part of the program that writes the events: it needs no
// process of its own.
func ExampleRelay_Run() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	servers, done := exampleServers(ctx)
	defer done()

	r, err := relay.New(relay.Config{
		Postgres: servers.postgres, Brokers: servers.brokers, Source: "userdb",
		Slot: servers.name, PositionsTopic: servers.name + ".positions",
	})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	for r.Ready(ctx) != nil { // it makes the slot at its first start: what is written before is not in it
		select {
		case err := <-ended:
			log.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}

	err = pgx.BeginFunc(ctx, servers.conn, func(tx pgx.Tx) error {
		return outbox.Write(ctx, tx, outbox.Event{
			Topic: servers.name + ".created", AggregateType: "user", AggregateID: "42", AggregateVersion: 1,
			Type: "UserCreated", Payload: []byte(`{"email":"ada@example.com"}`),
		})
	})
	if err != nil {
		log.Fatal(err)
	}

	consumer, err := kgo.NewClient(kgo.SeedBrokers(servers.brokers...), kgo.ConsumeTopics(servers.name+".created"), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Close()
	consumer.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
		event, err := cloudevent.Decode(record)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Source, event.Sequence, event.Type, string(record.Key), string(event.Data))
	})

	stop() // what is on its way is waited for
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output: userdb 1 UserCreated 42 {"email":"ada@example.com"}
}

// example is what an example works on.
type example struct {
	postgres string // DSN of a database with the outbox's tables
	brokers  []string
	name     string // of nobody else
	conn     *pgx.Conn
}

// exampleServers makes a database on the server of the environment. done drops
// it.
func exampleServers(ctx context.Context) (e example, done func()) {
	admin, brokers := os.Getenv("WALPOST_TEST_POSTGRES"), os.Getenv("WALPOST_TEST_KAFKA")
	if admin == "" || brokers == "" {
		log.Fatal("WALPOST_TEST_POSTGRES or WALPOST_TEST_KAFKA is not set: run the examples with make test")
	}
	e.brokers, e.name = strings.Split(brokers, ","), "example_"+strings.ReplaceAll(outbox.NewID().String(), "-", "")
	server, err := pgx.Connect(ctx, admin)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := server.Exec(ctx, "create database "+e.name); err != nil {
		log.Fatal(err)
	}
	config := server.Config().Copy()
	config.Database = e.name
	if e.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		log.Fatal(err)
	}
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		log.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := e.conn.Exec(ctx, up); err != nil {
		log.Fatal(err)
	}
	dsn, err := url.Parse(admin)
	if err != nil {
		log.Fatal(err)
	}
	dsn.Path = "/" + e.name
	e.postgres = dsn.String()
	return e, func() {
		ctx := context.WithoutCancel(ctx)
		// The slot is this relay's until its walsender has noticed the end.
		_, err := e.conn.Exec(ctx, `select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = $1 and active_pid is not null`, e.name)
		_, errSlot := e.conn.Exec(ctx, `select pg_drop_replication_slot($1)`, e.name)
		errClose := e.conn.Close(ctx)
		_, errDrop := server.Exec(ctx, "drop database "+e.name+" with (force)")
		if err := errors.Join(err, errSlot, errClose, errDrop, server.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
}
