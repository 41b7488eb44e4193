package relay

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// An outside opens what sessions work on: PostgreSQL and Kafka, or what stands
// for them in a test.
type outside interface {
	// database connects to PostgreSQL.
	database(ctx context.Context) (database, error)

	// kafka makes a session's client and the store of positions; admin looks
	// after topics. transactional names the producer of transactions; where it
	// is empty the producer is a plain one.
	kafka(transactional string, topics *topics) (p producer, store positions, admin *kgo.Client, err error)

	// fence ends the transaction of whoever has the transactional id, and
	// keeps them from another one.
	fence(ctx context.Context, transactional string) error
}

// A database is a connection to PostgreSQL and what is done over it, by one
// goroutine at a time.
type database interface {
	// lock waits until this connection is the only one with the lock of the
	// slot, and keeps it until close.
	lock(ctx context.Context) error

	// holds fails when the lock may be another's, or when the slot is not the
	// open stream's.
	holds(ctx context.Context) error

	inspect(ctx context.Context) (slot.State, error)
	publish(ctx context.Context, s slot.State) error
	create(ctx context.Context, s slot.State) (slot.Created, error)
	drop(ctx context.Context) error

	// stream takes the slot and begins to stream behind start.
	stream(ctx context.Context, start lsn.Pos) (stream, error)

	close(ctx context.Context) error
}

// A stream gives what commits behind a position: a [wal.Stream] in all but
// tests, whose contract it has.
type stream interface {
	Next() (wal.Message, error)
	Confirm(pos lsn.Pos, reply bool) error
	Interrupt()
	Close() error
}

// A producer takes records to Kafka: a [kgo.Client] in all but tests, whose
// contract it has. The methods about transactions are for one that has a
// transactional id.
type producer interface {
	Produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error))
	Flush(ctx context.Context) error
	Close()

	ProducerID(ctx context.Context) (id int64, epoch int16, err error)
	BeginTransaction() error
	EndTransaction(ctx context.Context, commit kgo.TransactionEndTry) error
	AbortBufferedRecords(ctx context.Context) error
}

// A positions keeps how far the source is published: a [position.Store] in all
// but tests, whose contract it has.
type positions interface {
	Prepare(ctx context.Context) error
	Load(ctx context.Context) (p position.Position, found bool, err error)
	Save(ctx context.Context, p position.Position) error
	Record(p position.Position) (*kgo.Record, error)
}
