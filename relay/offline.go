package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// WithDefaults gives c with all that is unset filled, and every problem at
// once, as [New] does: for tools that examine what a relay works on.
func (c Config) WithDefaults() (Config, error) {
	c, _, err := c.withDefaults()
	if err != nil {
		return c, fmt.Errorf("configure the relay:\n%w", err)
	}
	return c, nil
}

// Names are what the relay works on in PostgreSQL, of a c with its defaults.
func (c Config) Names() slot.Names { return c.names() }

// Lost says why events may be missing behind the stored position, in the words
// with which a relay refuses to start; empty: none are.
func Lost(stored position.Position, state slot.State, names slot.Names) string {
	return loss(&stored, state, names)
}

// TryLock takes the lock that a relay of the slot has while it works, without
// waiting, and reports whether it is now conn's. It ends with conn.
func TryLock(ctx context.Context, conn *pgx.Conn, name string) (taken bool, err error) {
	if err := conn.QueryRow(ctx, tryLock, name).Scan(&taken); err != nil {
		return false, fmt.Errorf("ask for the lock of slot %s: %w", name, err)
	}
	return taken, nil
}

// A StoredRow is a row of the outbox table as a query gives it, or an event
// out of one.
type StoredRow struct {
	envelope.Event        // without Headers
	JSON           []byte // the headers; nil: none
	CreatedAt      time.Time
}

// An Offline publishes for a source while no relay of it runs, as the relay
// would: the same topics, records and limits. It is for one goroutine.
type Offline struct {
	Client    *kgo.Client
	Positions *position.Store
	Options   []kgo.Opt // to connect with

	cfg     Config
	servers *servers
	topics  topics
	router  router
	row     row

	mu      sync.Mutex
	refused error // the first
}

// NewOffline makes the client, which connects when it is used. c must have its
// defaults. Close the result.
func NewOffline(c Config) (*Offline, error) {
	o := &Offline{
		cfg: c, servers: &servers{cfg: c}, router: router{source: c.Source},
		topics: topics{cfg: c, lessons: new(lessons)},
	}
	o.Options = o.servers.clientOptions()
	_, store, client, err := o.servers.kafka("", &o.topics)
	if err != nil {
		return nil, err
	}
	o.Client = client
	o.Positions = store.(*position.Store) // of servers it is never another
	return o, nil
}

// Close ends the client.
func (o *Offline) Close() { o.Client.Close() }

// Fence ends the Kafka transaction of a relay that publishes exactly once and
// does not know yet that its slot is gone.
func (o *Offline) Fence(ctx context.Context) error {
	return o.servers.fence(ctx, transactionalID(o.cfg.Source))
}

// Events calls each with the event of r, or with each of those that are packed
// in it, once all are found valid. What it gives is valid until each returns.
func (o *Offline) Events(r *StoredRow, each func(*StoredRow) error) error {
	if plain := (&row{Event: r.Event}); !plain.packed() {
		return each(r)
	}
	if id, err := (&session{}).check(r.Payload, r.CreatedAt); err != nil {
		return &RowError{ID: cmp.Or(id, r.ID), Err: err}
	}
	reader, err := envelope.NewReader(r.Payload)
	if err != nil {
		return &RowError{ID: r.ID, Err: err}
	}
	event := StoredRow{CreatedAt: r.CreatedAt}
	for {
		ok, err := reader.Next(&event.Event)
		if err != nil || !ok {
			return err
		}
		if err := each(&event); err != nil {
			return err
		}
	}
}

// Record gives the record of an event whose commit is not known any more: its
// position has the LSN 0/0, and index tells it from others of the generation.
// The record owns its memory.
func (o *Offline) Record(r *StoredRow, generation, index, sequence int64) (*kgo.Record, error) {
	o.router.generation = generation
	o.row.Event, o.row.json, o.row.createdAt = r.Event, r.JSON, r.CreatedAt
	record, err := o.router.route(&o.row, lsn.Pos(0), index, sequence)
	if err != nil {
		return nil, &RowError{ID: r.ID, Err: err}
	}
	return record, nil
}

// Produce hands record to Kafka, and makes its topic if that is missing. Its
// fate is [Offline.Flush]'s to tell.
func (o *Offline) Produce(ctx context.Context, record *kgo.Record) error {
	if _, err := o.topics.ensure(ctx, o.Client, record.Topic); err != nil {
		return err
	}
	o.Client.Produce(context.WithoutCancel(ctx), record, func(r *kgo.Record, err error) {
		if err == nil {
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.refused = cmp.Or(o.refused, refused(r, err))
	})
	return o.failed()
}

// Flush returns when Kafka has every record produced, or with the first that
// it refused. Records behind that one may be in Kafka.
func (o *Offline) Flush(ctx context.Context) error {
	if err := o.Client.Flush(ctx); err != nil {
		return errors.Join(o.failed(), fmt.Errorf("publish: %w", err))
	}
	return o.failed()
}

func (o *Offline) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refused
}
