package inbox_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox/inbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
)

// deadLetters gives an example a database with an event whose handler failed,
// and one that waits behind it.
func deadLetters(ctx context.Context) (*pgxpool.Pool, func()) {
	pool, done, err := exampledb.Open(ctx, `
		insert into inbox_dead (consumer_group, ordering_key, state, event_id, event_time, type, topic, partition, "offset", record_time,
			key, header_names, header_values, payload, error, attempts)
		values ('mailer', 'user/42', 'dead', '1', now(), 'UserCreated', 'user.created', 0, 7, now(),
				'42', '{ce_id,ce_type}', '{"1","UserCreated"}', '{"email":"ada@example"}', 'no such domain: example', 10),
			('mailer', 'user/42', 'waiting', '2', now(), 'UserUpdated', 'user.updated', 0, 3, now(),
				'42', '{ce_id,ce_type}', '{"2","UserUpdated"}', '{"name":"Ada"}', null, 0);`)
	if err != nil {
		log.Fatal(err)
	}
	return pool, done
}

func ExampleDeadLetters_List() {
	ctx := context.Background()
	pool, done := deadLetters(ctx)
	defer done()

	page, err := inbox.DeadLetters{DB: pool}.List(ctx, inbox.Filter{State: inbox.StateDead, Error: "no such domain"}, 50, 0)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range page.Letters {
		fmt.Println(l.Type, l.OrderingKey, l.Error, l.Attempts, l.Behind)
	}
	// Output: UserCreated user/42 no such domain: example 10 1
}

// A payload that no handler can take is mended and handled by the running
// service, with what waits behind it.
func ExampleDeadLetters_Redrive() {
	ctx := context.Background()
	pool, done := deadLetters(ctx)
	defer done()

	letters := inbox.DeadLetters{DB: pool}
	l, err := letters.Edit(ctx, 1, inbox.Edit{Payload: []byte(`{"email":"ada@example.com"}`)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, was %s\n", l.Payload, l.OriginalPayload)
	redriven, err := letters.Redrive(ctx, inbox.Redrive{Filter: inbox.Filter{IDs: []int64{1}}, Rate: 10})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(redriven.Letters), "begins and", redriven.Behind, "follows")
	// Output:
	// {"email":"ada@example.com"}, was {"email":"ada@example"}
	// 1 begins and 1 follows
}

func ExampleDeadLetters_Drop() {
	ctx := context.Background()
	pool, done := deadLetters(ctx)
	defer done()

	dropped, err := inbox.DeadLetters{DB: pool}.Drop(ctx, inbox.Drop{
		Filter: inbox.Filter{Type: "UserCreated"}, Reason: "anna: the address was a test",
	})
	if err != nil {
		log.Fatal(err)
	}
	var reason string
	if err := pool.QueryRow(ctx, "select dropped from inbox where event_id = $1", dropped[0].EventID).Scan(&reason); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", dropped[0].Payload, reason)
	// Output: {"email":"ada@example"}: anna: the address was a test
}

// A pass by hand, as a scheduled job makes it where the service's role may not
// change the table.
func ExampleWindow_Keep() {
	ctx := context.Background()
	pool, done := deadLetters(ctx)
	defer done()
	brokers := os.Getenv("WALPOST_TEST_KAFKA")
	if brokers == "" {
		log.Fatal("WALPOST_TEST_KAFKA is not set: run the examples with make test")
	}

	window, err := inbox.NewWindow(inbox.WindowConfig{Pool: pool, Brokers: strings.Split(brokers, ",")})
	if err != nil {
		log.Fatal(err)
	}
	kept, err := window.Keep(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("days before, today and after:", len(kept.Made), "dropped:", len(kept.Dropped))
	// Output: days before, today and after: 11 dropped: 0
}
