package outboxtest_test

import (
	"context"
	"fmt"
	"log"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
	"github.com/seed-048de892/walpost/outbox/outboxtest"
)

// In a test, t is the *testing.T.
func ExampleRequireWritten() {
	ctx := context.Background()
	pool, done, err := exampledb.Open(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	type sold struct{ Price int }
	seatSold := outbox.Typed[sold]{Name: "SeatSold", Topic: "seat.sold", AggregateType: "seat"}

	tx, err := pool.Begin(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	sell := func(ctx context.Context, tx pgx.Tx) error { // the code under test
		e, err := seatSold.Event("12F", 1, sold{Price: 80})
		if err != nil {
			return err
		}
		return outbox.Write(ctx, tx, e)
	}
	if err := sell(ctx, tx); err != nil {
		log.Fatal(err)
	}
	t := &failure{ctx: ctx}
	event := outboxtest.RequireWritten(t, tx, seatSold, outboxtest.AggregateID("12F"))
	fmt.Println(event.Data.Price, event.AggregateVersion)
	// Output: 80 1
}

var _ outboxtest.TB = (*testing.T)(nil)
