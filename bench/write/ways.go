package write

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/envelope"
)

// A message is what a contender makes its event, message or job of.
type message struct {
	key     string
	payload []byte
}

// minPayload is the shortest payload that messages makes.
const minPayload = 200

// messages makes n messages of different keys. Their payloads have the names
// of their fields in common and nothing else, as events of one type do: what a
// server gains by compressing several together is then what it gains in life.
func messages(n, payloadBytes int) []message {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	random := rand.New(rand.NewPCG(1, 2)) // the same in every run
	text := func(length int) string {
		b := make([]byte, length)
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	list := make([]message, n)
	for i := range list {
		payload := fmt.Sprintf(`{"accountId":"%s","changedBy":"%s","balanceInCents":%d,"currency":"EUR","reason":"`, text(36), text(36), 100_000+random.IntN(900_000))
		payload += text(payloadBytes-len(payload)-2) + `"}`
		list[i] = message{key: strconv.Itoa(i + 1), payload: []byte(payload)}
	}
	return list
}

// A way is one way to write events in a transaction.
type way struct {
	name  string
	write func(ctx context.Context, tx pgx.Tx, list []message) error
	table string // where they are then, empty for the write-ahead log alone
	count func(ctx context.Context, pool *pgxpool.Pool) (int, error)
}

// The names by which parts pick ways.
const (
	wayRows      = "outbox.Write"
	wayUnnest    = "outbox.Queue"
	wayCopy      = "plain `CopyFrom`"
	wayExec      = "plain `Exec` for each"
	wayPacked    = "outbox.Write, packed"
	wayWAL       = "outbox.Write, wal"
	wayWatermill = "Watermill SQL `Publish`"
	wayRiver     = "River `InsertManyTx`"
	wayRiverFast = "River `InsertManyFastTx`"
)

func ways(ctx context.Context, pool *pgxpool.Pool) ([]way, error) {
	list := []way{
		walpost(wayRows, outbox.Writer{}), walpost(wayPacked, outbox.Writer{Mode: outbox.Packed}), walpost(wayWAL, outbox.Writer{Mode: outbox.WAL}),
		{name: wayUnnest, table: "outbox", count: countOutbox, write: writeQueue},
		{name: wayCopy, table: "outbox", count: countOutbox, write: writeCopy},
		{name: wayExec, table: "outbox", count: countOutbox, write: writeExec},
	}
	watermill, err := watermillWay(ctx, pool)
	if err != nil {
		return nil, err
	}
	river, err := riverWays(pool)
	if err != nil {
		return nil, err
	}
	return append(append(list, watermill), river...), nil
}

// way gives the way of that name, which is one of the constants.
func (db *database) way(name string) way {
	return db.ways[slices.IndexFunc(db.ways, func(w way) bool { return w.name == name })]
}

func walpost(name string, w outbox.Writer) way {
	v := way{name: name, write: func(ctx context.Context, tx pgx.Tx, list []message) error {
		return w.Write(ctx, tx, events(list)...)
	}}
	if w.Mode != outbox.WAL {
		v.table, v.count = "outbox", countOutbox
	}
	return v
}

func event(m message) outbox.Event {
	return outbox.Event{
		Topic: "account.changed", AggregateType: "account", AggregateID: m.key, AggregateVersion: 1,
		Type: "AccountChanged", Payload: m.payload,
	}
}

func events(list []message) []outbox.Event {
	all := make([]outbox.Event, len(list))
	for i, m := range list {
		all[i] = event(m)
	}
	return all
}

func writeQueue(ctx context.Context, tx pgx.Tx, list []message) error {
	var batch pgx.Batch
	if err := outbox.Queue(ctx, &batch, events(list)...); err != nil {
		return err
	}
	return tx.SendBatch(ctx, &batch).Close()
}

var columns = []string{"id", "topic", "aggregate_type", "aggregate_id", "aggregate_version", "type", "payload", "headers"}

// rowOf is m as a row of the outbox table, with values that pgx takes as they
// are.
func rowOf(m message) []any {
	return []any{[16]byte(outbox.NewID()), "account.changed", "account", m.key, int64(1), "AccountChanged", m.payload, nil}
}

func writeCopy(ctx context.Context, tx pgx.Tx, list []message) error {
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"outbox"}, columns, pgx.CopyFromSlice(len(list), func(i int) ([]any, error) {
		return rowOf(list[i]), nil
	}))
	return err
}

var insertRow = "insert into outbox (" + strings.Join(columns, ", ") + ") values ($1, $2, $3, $4, $5, $6, $7, $8)"

func writeExec(ctx context.Context, tx pgx.Tx, list []message) error {
	for _, m := range list {
		if _, err := tx.Exec(ctx, insertRow, rowOf(m)...); err != nil {
			return err
		}
	}
	return nil
}

// countOutbox counts the events in the outbox table, in envelopes or not.
func countOutbox(ctx context.Context, pool *pgxpool.Pool) (n int, err error) {
	if err := pool.QueryRow(ctx, `select count(*) from outbox where topic <> ''`).Scan(&n); err != nil {
		return 0, err
	}
	rows, err := pool.Query(ctx, `select payload from outbox where topic = ''`)
	if err != nil {
		return 0, err
	}
	var payload []byte
	_, err = pgx.ForEachRow(rows, []any{&payload}, func() error {
		in, err := countEnvelope(payload)
		n += in
		return err
	})
	return n, err
}

func countEnvelope(b []byte) (n int, err error) {
	r, err := envelope.NewReader(b)
	if err != nil {
		return 0, err
	}
	var e envelope.Event
	for {
		ok, err := r.Next(&e)
		if err != nil || !ok {
			return n, err
		}
		n++
	}
}

func countTable(table string) func(context.Context, *pgxpool.Pool) (int, error) {
	return func(ctx context.Context, pool *pgxpool.Pool) (n int, err error) {
		err = pool.QueryRow(ctx, "select count(*) from "+table).Scan(&n)
		return n, err
	}
}

// verify fails unless want events have been written with w since its table
// was empty; began is the position of the write-ahead log at that time, which
// is all that tells where there is no table.
func (db *database) verify(ctx context.Context, w *way, want int, began int64) (walBytes int64, err error) {
	end, err := db.walPosition(ctx)
	if err != nil {
		return 0, err
	}
	if w.count == nil {
		if least := int64(want) * int64(db.PayloadBytes); end-began < least {
			return 0, fmt.Errorf("%s: the write-ahead log has grown by %d bytes, want at least the %d of the payloads", w.name, end-began, least)
		}
		return end - began, nil
	}
	got, err := w.count(ctx, db.off)
	if err != nil {
		return 0, fmt.Errorf("%s: count the events: %w", w.name, err)
	}
	if got != want {
		return 0, fmt.Errorf("%s: %d events in the table, want %d", w.name, got, want)
	}
	return end - began, nil
}
