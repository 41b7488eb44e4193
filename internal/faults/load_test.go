package faults

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox"
)

// The ledger tells in every mode what was committed: its rows are written in
// the transactions of the events. A key's version is its count of events.
const createLedger = `
	create table keys (id text primary key, version bigint not null);
	create table ledger (
		id uuid primary key, transaction bigint not null default pg_current_xact_id()::text::bigint, place int not null,
		topic text not null, key text not null, version bigint not null, mode text not null, digest bytea not null
	)`

const (
	writers = 8
	keys    = 40
)

var errAbort = errors.New("rolled back")

// A load writes transactions of events, at an even pace and in bursts.
type load struct {
	pool   *pgxpool.Pool
	topics []string // a key keeps to one

	tickets   chan struct{} // one for each transaction that is to commit
	committed atomic.Int64  // events, of which the writers know
	outage    atomic.Bool   // PostgreSQL may fail: writers try again
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// start begins to write.
func (l *load) start(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	l.tickets = make(chan struct{}, 10_000)
	for w := range writers {
		l.running.Go(func() { l.write(ctx, t, w) })
	}
	l.running.Go(func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-pace.C:
				l.burst(1)
			case <-ctx.Done():
				return
			}
		}
	})
}

// burst asks for n more transactions at once.
func (l *load) burst(n int) {
	for range n {
		select {
		case l.tickets <- struct{}{}:
		default: // the writers are far behind
		}
	}
}

// end stops the writers after the transactions they are in.
func (l *load) end() {
	l.stop()
	l.running.Wait()
}

func (l *load) write(ctx context.Context, t *testing.T, w int) {
	random := rand.New(rand.NewPCG(uint64(w), 7))
	for {
		select {
		case <-l.tickets:
		case <-ctx.Done():
			return
		}
		for done := false; !done; {
			n, err := l.transaction(context.WithoutCancel(ctx), random)
			switch {
			case err == nil:
				l.committed.Add(int64(n))
				done = true
			case errors.Is(err, errAbort):
			case !l.outage.Load() || !connectionLost(err):
				t.Errorf("writer %d: %v", w, err)
				return
			default:
				// Committed or not, the ledger will tell. The server is away.
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// connectionLost tells what a crash of the server does to a client.
func connectionLost(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return !ok || refused.Code[:2] == "57" || refused.Code[:2] == "08"
}

// transaction is one of several writes in all modes and some savepoints, on one
// key or two. It rolls back one in five with errAbort.
func (l *load) transaction(ctx context.Context, random *rand.Rand) (n int, err error) {
	err = pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		b, err := l.begin(ctx, tx, []string{fmt.Sprintf("k%d", random.IntN(keys)), fmt.Sprintf("k%d", random.IntN(keys))})
		if err != nil {
			return err
		}
		for range 1 + random.IntN(3) {
			writer := outbox.Writer{Mode: outbox.Mode(random.IntN(3))}
			count := 1 + random.IntN(3)
			if random.IntN(50) == 0 {
				count = 300 // by COPY
			}
			if err := b.piece(ctx, writer, random, count); err != nil {
				return err
			}
		}
		n = len(b.entries)
		if err := b.finish(ctx); err != nil {
			return err
		}
		if random.IntN(5) == 0 {
			return errAbort
		}
		return nil
	})
	return n, err
}

// A book keeps what a transaction has written.
type book struct {
	tx       pgx.Tx
	topics   []string
	keys     []string
	versions map[string]int64
	entries  []committed
	place    int
}

// begin locks the keys, in one order: no deadlocks.
func (l *load) begin(ctx context.Context, tx pgx.Tx, keys []string) (*book, error) {
	b := &book{tx: tx, topics: l.topics, versions: make(map[string]int64)}
	slices.Sort(keys)
	b.keys = slices.Compact(keys)
	rows, _ := tx.Query(ctx, `select id, version from keys where id = any($1) order by id for update`, b.keys) // ForEachRow gives its error
	var key string
	var version int64
	_, err := pgx.ForEachRow(rows, []any{&key, &version}, func() error {
		b.versions[key] = version
		return nil
	})
	return b, err
}

// piece is one Write or Queue, outside a savepoint or in one, which is then
// released or rolled back.
func (b *book) piece(ctx context.Context, w outbox.Writer, random *rand.Rand, count int) error {
	size := random.IntN(600)
	if random.IntN(100) == 0 {
		size = 50_000
	}
	versions, entries := maps.Clone(b.versions), len(b.entries)
	events := b.events(w.Mode, count, func() (string, int) { return b.keys[random.IntN(len(b.keys))], size })
	switch random.IntN(5) {
	case 0:
		var batch pgx.Batch
		if err := w.Queue(ctx, &batch, events...); err != nil {
			return err
		}
		return b.tx.SendBatch(ctx, &batch).Close()
	case 1:
		return pgx.BeginFunc(ctx, b.tx, func(savepoint pgx.Tx) error { return w.Write(ctx, savepoint, events...) })
	case 2:
		err := pgx.BeginFunc(ctx, b.tx, func(savepoint pgx.Tx) error {
			return cmp.Or(w.Write(ctx, savepoint, events...), errAbort)
		})
		b.versions, b.entries = versions, b.entries[:entries]
		if errors.Is(err, errAbort) {
			return nil
		}
		return err
	}
	return w.Write(ctx, b.tx, events...)
}

// events makes events and enters them.
func (b *book) events(mode outbox.Mode, count int, next func() (key string, size int)) []outbox.Event {
	events := make([]outbox.Event, count)
	for i := range events {
		key, size := next()
		payload := make([]byte, size)
		_, _ = crand.Read(payload) // never fails
		events[i] = b.enter(mode, key, payload)
	}
	return events
}

// enter makes an event of a key with a payload and enters it.
func (b *book) enter(mode outbox.Mode, key string, payload []byte) outbox.Event {
	b.versions[key]++
	var number int
	_, _ = fmt.Sscanf(key, "k%d", &number) // as begin was told
	e := outbox.Event{
		ID: outbox.NewID(), Topic: b.topics[number%len(b.topics)], AggregateType: "key", AggregateID: key, AggregateVersion: b.versions[key],
		Type: "Written", Payload: payload, Headers: map[string]string{"mode": mode.String()},
	}
	digest := sha256.Sum256(payload)
	b.entries = append(b.entries, committed{
		ID: e.ID.String(), Place: b.place, Topic: e.Topic, Key: key, Version: e.AggregateVersion, Mode: mode.String(), Digest: digest[:],
	})
	b.place++
	return e
}

// finish stores the keys' versions and the entries.
func (b *book) finish(ctx context.Context) error {
	var batch pgx.Batch
	for key, version := range b.versions {
		batch.Queue(`update keys set version = $2 where id = $1`, key, version)
	}
	if err := b.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	_, err := b.tx.CopyFrom(ctx, pgx.Identifier{"ledger"}, []string{"id", "place", "topic", "key", "version", "mode", "digest"},
		pgx.CopyFromSlice(len(b.entries), func(i int) ([]any, error) {
			e := &b.entries[i]
			return []any{e.ID, e.Place, e.Topic, e.Key, e.Version, e.Mode, e.Digest}, nil
		}))
	return err
}

// readLedger gives all that was committed.
func readLedger(ctx context.Context, pool *pgxpool.Pool) ([]committed, error) {
	rows, _ := pool.Query(ctx, `select id::text, transaction, place, topic, key, version, mode, digest from ledger`) // CollectRows gives its error
	return pgx.CollectRows(rows, pgx.RowToStructByPos[committed])
}
