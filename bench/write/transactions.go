package write

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/seed-048de892/walpost/outbox"
)

// business is the statement that the events tell of: one row, by its key.
const business = `update accounts set balance = balance + $2, changes = changes + 1 where id = $1`

// The shapes of a transaction, with the round trips of each.
const (
	shapeTx       = "`BEGIN`, statement, `COMMIT`"
	shapeTxBatch  = "`BEGIN`, batch, `COMMIT`"
	shapeAll      = "`BEGIN`, statement, `COMMIT` in one batch"
	shapeImplicit = "one batch"
	shapeOne      = "one statement"
)

type transaction struct {
	shape string
	trips int
	adds  string // what writes the event; empty for nothing
	contender
}

// transactions are the lines of the table; the first is what all are compared
// with.
func (db *database) transactions() []transaction {
	payload := messages(1, db.PayloadBytes)[0].payload
	rows, wal := db.way(wayRows), db.way(wayWAL)
	inWAL := outbox.Writer{Mode: outbox.WAL}
	inTransaction := func(adds string, w *way) transaction {
		trips := 3
		if w != nil {
			trips++
		}
		return transaction{shapeTx, trips, adds, contender{way: w, run: func(ctx context.Context, pool *pgxpool.Pool, c *client) error {
			return inTx(ctx, pool, func(tx pgx.Tx) error {
				id := c.account()
				if _, err := tx.Exec(ctx, business, id, 1); err != nil || w == nil {
					return err
				}
				return w.write(ctx, tx, []message{{key: strconv.FormatInt(id, 10), payload: payload}})
			})
		}}}
	}
	// queued runs the statement, and the event's where there is a writer, in
	// one batch between begin and commit, which may be empty.
	queued := func(shape string, trips int, adds string, w *outbox.Writer, counted *way, send func(context.Context, *pgxpool.Pool, *pgx.Batch) error) transaction {
		return transaction{shape, trips, adds, contender{way: counted, run: func(ctx context.Context, pool *pgxpool.Pool, c *client) error {
			var b pgx.Batch
			if shape == shapeAll {
				b.Queue("begin")
			}
			id := c.account()
			b.Queue(business, id, 1)
			if w != nil {
				if err := w.Queue(ctx, &b, event(message{key: strconv.FormatInt(id, 10), payload: payload})); err != nil {
					return err
				}
			}
			if shape == shapeAll {
				b.Queue("commit")
			}
			return send(ctx, pool, &b)
		}}}
	}
	batch := func(ctx context.Context, pool *pgxpool.Pool, b *pgx.Batch) error {
		return pool.SendBatch(ctx, b).Close()
	}
	batchInTx := func(ctx context.Context, pool *pgxpool.Pool, b *pgx.Batch) error {
		return inTx(ctx, pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, b).Close() })
	}
	watermill, river := db.way(wayWatermill), db.way(wayRiver)
	list := []transaction{
		inTransaction("", nil),
		inTransaction("`outbox.Write`", &rows),
		queued(shapeTxBatch, 3, "`outbox.Queue`", new(outbox.Writer), &rows, batchInTx),
		inTransaction("`outbox.Write`, wal", &wal),
		inTransaction("Watermill SQL `Publish`", &watermill),
		inTransaction("River `InsertTx`", &river),
		queued(shapeAll, 1, "", nil, nil, batch),
		queued(shapeAll, 1, "`outbox.Queue`", new(outbox.Writer), &rows, batch),
		queued(shapeImplicit, 1, "`outbox.Queue`", new(outbox.Writer), &rows, batch),
		queued(shapeImplicit, 1, "`outbox.Queue`, wal", &inWAL, &wal, batch),
		{shapeOne, 1, "", contender{run: func(ctx context.Context, pool *pgxpool.Pool, c *client) error {
			_, err := pool.Exec(ctx, business, c.account(), 1)
			return err
		}}},
		{shapeOne, 1, "`outbox.Change`", contender{way: &rows, run: func(ctx context.Context, pool *pgxpool.Pool, c *client) error {
			id := c.account()
			e := event(message{key: strconv.FormatInt(id, 10), payload: payload})
			changed, err := outbox.Writer{}.Change(ctx, pool, []outbox.Event{e}, business, id, 1)
			if err == nil && !changed {
				err = fmt.Errorf("account %d was not changed", id)
			}
			return err
		}}},
	}
	for i := range list {
		t := &list[i]
		t.name = t.shape
		if t.adds != "" {
			t.name += " + " + t.adds
			t.events = 1
		}
	}
	return list
}

// measureTransactions compares transactions of one business statement with and
// without an event.
func measureTransactions(ctx context.Context, db *database, b *strings.Builder) error {
	list := db.transactions()
	contenders := make([]contender, len(list))
	for i := range list {
		contenders[i] = list[i].contender
	}
	perSecond := func(t turn) float64 { return t.perSecond }
	cpu := func(t turn) float64 { return t.goCPU + t.serverCPU }
	off, err := db.rounds(ctx, course{"transactions, synchronous_commit off", db.off, db.Clients, db.Turn}, contenders)
	if err != nil {
		return err
	}
	// A disk is slower than a core, and moodier.
	on, err := db.rounds(ctx, course{"transactions, synchronous_commit on", db.on, db.Clients, 4 * db.Turn}, contenders)
	if err != nil {
		return err
	}
	head := []string{
		"transaction", "event by", "round trips",
		"off: ratio (quartiles)", "off: transactions/s", "off: CPU, ratio",
		"on: ratio (quartiles)", "on: transactions/s", "on: CPU, ratio", "WAL bytes",
	}
	lines := make([][]string, len(list))
	ratioOff, ratioOn := ratios(off, 0, perSecond), ratios(on, 0, perSecond)
	cpuOff, cpuOn := ratios(off, 0, cpu), ratios(on, 0, cpu)
	rateOff, rateOn := medians(off, perSecond), medians(on, perSecond)
	wal := medians(off, func(t turn) float64 { return t.walBytes })
	for i, t := range list {
		lines[i] = []string{
			t.shape, orDash(t.adds), strconv.Itoa(t.trips),
			spread(ratioOff[i]), count(rateOff[i]), ratio(cpuOff[i][0]),
			spread(ratioOn[i]), count(rateOn[i]), ratio(cpuOn[i][0]), count(wal[i]),
		}
	}
	fmt.Fprintf(b, "Transactions of one business statement (an update by key), with and without an event, %d clients, `synchronous_commit` off and on (turns four times as long). "+
		"Ratios are to the first line, higher is better; CPU is that of the clients and of the server's sessions together for a transaction, lower is better.\n\n", db.Clients)
	table(b, 2, head, lines)
	return nil
}
