package outbox_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
)

// database gives an example a pool on tables of its own.
func database(ctx context.Context) (*pgxpool.Pool, func()) {
	pool, done, err := exampledb.Open(ctx, `create table users (id text primary key, email text not null, version bigint not null)`)
	if err != nil {
		log.Fatal(err)
	}
	return pool, done
}

func ExampleWrite() {
	ctx := context.Background()
	pool, done := database(ctx)
	defer done()

	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into users values ('42', 'ada@example.com', 1)`); err != nil {
			return err
		}
		return outbox.Write(ctx, tx, outbox.Event{
			Topic: "user.created", AggregateType: "user", AggregateID: "42", AggregateVersion: 1,
			Type: "UserCreated", Payload: []byte(`{"email":"ada@example.com"}`),
		})
	})
	if err != nil {
		log.Fatal(err)
	}
	var row string
	if err := pool.QueryRow(ctx, `select concat_ws(' ', topic, aggregate_id, type, convert_from(payload, 'UTF8')) from outbox`).Scan(&row); err != nil {
		log.Fatal(err)
	}
	fmt.Println(row)
	// Output: user.created 42 UserCreated {"email":"ada@example.com"}
}

// A batch takes statement and event to PostgreSQL in one round trip.
func ExampleQueue() {
	ctx := context.Background()
	pool, done := database(ctx)
	defer done()

	var batch pgx.Batch
	batch.Queue(`insert into users values ($1, $2, 1)`, "42", "ada@example.com")
	err := outbox.Queue(ctx, &batch, outbox.Event{
		Topic: "user.created", AggregateType: "user", AggregateID: "42", AggregateVersion: 1,
		Type: "UserCreated", Payload: []byte(`{"email":"ada@example.com"}`),
	})
	if err != nil {
		log.Fatal(err) // refused: nothing has been queued
	}
	if err := pool.SendBatch(ctx, &batch).Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(count(ctx, pool), "event")
	// Output: 1 event
}

// Change writes the event only where the row was at the version expected.
func ExampleWriter_Change() {
	ctx := context.Background()
	pool, done := database(ctx)
	defer done()
	if _, err := pool.Exec(ctx, `insert into users values ('42', 'ada@example.com', 1)`); err != nil {
		log.Fatal(err)
	}

	var writer outbox.Writer
	for range 2 { // the second comes too late: the row is at version 2
		changed, err := writer.Change(ctx, pool, []outbox.Event{{
			Topic: "user.updated", AggregateType: "user", AggregateID: "42", AggregateVersion: 2,
			Type: "UserUpdated", Payload: []byte(`{"email":"ada@lovelace.example"}`),
		}}, `update users set email = $3, version = version + 1 where id = $1 and version = $2`, "42", 1, "ada@lovelace.example")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(changed)
	}
	fmt.Println(count(ctx, pool), "event")
	// Output:
	// true
	// false
	// 1 event
}

// Metadata set where a request comes in stands in the headers of every event.
func ExampleWithMetadata() {
	ctx := context.Background()
	pool, done := database(ctx)
	defer done()

	ctx = outbox.WithMetadata(ctx, outbox.Metadata{RequestID: "r-17", UserID: "ada"})
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		return outbox.Write(ctx, tx, outbox.Event{Topic: "user.created", AggregateType: "user", AggregateID: "42", Type: "UserCreated"})
	})
	if err != nil {
		log.Fatal(err)
	}
	var headers string
	if err := pool.QueryRow(ctx, `select headers from outbox`).Scan(&headers); err != nil {
		log.Fatal(err)
	}
	fmt.Println(headers)
	// Output: {"userId": "ada", "requestId": "r-17"}
}

// In mode Packed all events of a call share a row.
func ExampleWriter_packed() {
	ctx := context.Background()
	pool, done := database(ctx)
	defer done()

	writer := outbox.Writer{Mode: outbox.Packed}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		events := make([]outbox.Event, 100)
		for i := range events {
			events[i] = outbox.Event{Topic: "seat.sold", AggregateType: "seat", AggregateID: fmt.Sprint(i), Type: "SeatSold"}
		}
		return writer.Write(ctx, tx, events...)
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(count(ctx, pool), "row")
	// Output: 1 row
}

// A hook sees what is written, for a metric say.
func ExampleHookWrite() {
	ctx := context.Background()
	pool, done := database(ctx)
	defer done()

	writer := outbox.Writer{Hooks: []outbox.Hook{printer{}}}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		return writer.Write(ctx, tx, outbox.Event{Topic: "user.created", AggregateType: "user", AggregateID: "42", Type: "UserCreated"})
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 1 event in mode rows, 17 bytes
}

type printer struct{}

func (printer) OnWrite(_ context.Context, w outbox.WriteInfo) {
	fmt.Printf("%d event in mode %v, %d bytes\n", w.Events, w.Mode, w.Bytes)
}

func count(ctx context.Context, pool *pgxpool.Pool) (n int) {
	if err := pool.QueryRow(ctx, `select count(*) from outbox`).Scan(&n); err != nil {
		log.Fatal(err)
	}
	return n
}
