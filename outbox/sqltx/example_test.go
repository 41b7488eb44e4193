package sqltx_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
	"github.com/seed-048de892/walpost/outbox/sqltx"
)

func ExampleWrite() {
	ctx := context.Background()
	pool, done, err := exampledb.Open(ctx, `create table users (id text, email text)`)
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	db := stdlib.OpenDBFromPool(pool) // or any other driver's *sql.DB
	defer func() { _ = db.Close() }()

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `insert into users values ($1, $2)`, "42", "ada@example.com"); err != nil {
		log.Fatal(err)
	}
	err = sqltx.Write(ctx, tx, outbox.Event{
		Topic: "user.created", AggregateType: "user", AggregateID: "42", AggregateVersion: 1,
		Type: "UserCreated", Payload: []byte(`{"email":"ada@example.com"}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
	var n int
	if err := db.QueryRowContext(ctx, `select count(*) from outbox where type = 'UserCreated'`).Scan(&n); err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "event")
	// Output: 1 event
}

func ExampleWriter_Change() {
	ctx := context.Background()
	pool, done, err := exampledb.Open(ctx, `create table users (id text, version bigint); insert into users values ('42', 7)`)
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()

	events := []outbox.Event{{Topic: "user.updated", AggregateType: "user", AggregateID: "42", AggregateVersion: 8, Type: "UserUpdated"}}
	var writer sqltx.Writer
	for range 2 {
		changed, err := writer.Change(ctx, db, events, `update users set version = 8 where id = $1 and version = $2`, "42", 7)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(changed)
	}
	// Output:
	// true
	// false
}
