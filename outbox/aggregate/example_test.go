package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
)

// A Seat is the state of the example's aggregate, and SeatSold its only event.
type Seat struct {
	Holder string `json:"holder"`
}

type SeatSold struct {
	To string `json:"to"`
}

func (s *Seat) sold(e SeatSold) { s.Holder = e.To }

var errTaken = errors.New("the seat is taken")

// Sell is a command: it looks at the state, and records what happens.
func Sell(seat *aggregate.Root[Seat], to string) error {
	if seat.State().Holder != "" {
		return errTaken
	}
	return aggregate.Record(seat, SeatSold{To: to})
}

func seats() (*aggregate.Definition[Seat], error) {
	return aggregate.New(aggregate.Config[Seat]{
		Type: "seat",
		Events: []aggregate.EventType[Seat]{
			aggregate.On(outbox.Typed[SeatSold]{Name: "SeatSold", Topic: "seat.sold"}, (*Seat).sold),
		},
	})
}

// Two people buy the same seat: one statement each, and one of them is told to
// look again.
func Example() {
	ctx := context.Background()
	db, done, err := exampledb.Open(ctx, `
		create table seats (id text primary key, version bigint not null, holder text not null);
		insert into seats values ('7F', 3, '')`)
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	def, err := seats()
	if err != nil {
		log.Fatal(err)
	}

	const save = `update seats set version = $3, holder = $4 where id = $1 and version = $2`
	ada, bob := def.Load("7F", 3, Seat{}), def.Load("7F", 3, Seat{})
	if err := errors.Join(Sell(ada, "Ada"), Sell(bob, "Bob")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(ada.Save(ctx, db, save, ada.ID(), ada.Expected(), ada.Version(), ada.State().Holder))
	err = bob.Save(ctx, db, save, bob.ID(), bob.Expected(), bob.Version(), bob.State().Holder)
	fmt.Println(errors.Is(err, aggregate.ErrVersionConflict), err)

	var event string
	if err := db.QueryRow(ctx, `select concat_ws(' ', type, aggregate_version, convert_from(payload, 'UTF8')) from outbox`).Scan(&event); err != nil {
		log.Fatal(err)
	}
	fmt.Println(event)
	// Output:
	// <nil>
	// true version conflict: seat 7F is not at version 3 any more: load it again and repeat the command
	// SeatSold 4 {"to":"Ada"}
}

// Events from Kafka, the archive or the outbox make the state again.
func ExampleRoot_Replay() {
	def, err := seats()
	if err != nil {
		log.Fatal(err)
	}
	snapshot := aggregate.Snapshot{AggregateType: "seat", AggregateID: "7F", Version: 3, SchemaVersion: 1, State: []byte(`{"holder":""}`)}
	seat, err := def.Restore(snapshot)
	if err != nil {
		log.Fatal(err)
	}
	err = seat.Replay(func(yield func(aggregate.Past, error) bool) {
		yield(aggregate.Past{Version: 4, Type: "SeatSold", Payload: []byte(`{"to":"Ada"}`)}, nil)
	})
	fmt.Println(seat.State().Holder, seat.Version(), err)
	// Output: Ada 4 <nil>
}
