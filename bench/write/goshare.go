package write

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/seed-048de892/walpost/outbox"
)

// A call is measured by what it costs in Go, beside what pgx needs for the
// same statement with arguments that are ready.
type call struct {
	name   string
	events int
	ours   func(ctx context.Context, tx pgx.Tx) error
	bare   func(ctx context.Context, tx pgx.Tx) error // nil: nothing to compare with
}

// cost is for one call.
type cost struct {
	cpu    float64 // seconds, the garbage collector's included
	allocs float64
	bytes  float64
}

// calls are the lines of the table.
func (db *database) calls(ctx context.Context) ([]call, error) {
	withMetadata := outbox.WithMetadata(ctx, outbox.Metadata{
		UserID: "42", RequestID: "0190163d-8694-739b-aea5-966c26f8ad91", Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	})
	rows, packed, wal := outbox.Writer{}, outbox.Writer{Mode: outbox.Packed}, outbox.Writer{Mode: outbox.WAL}
	var list []call
	var firstErr error
	add := func(name string, n int, ctx context.Context, w outbox.Writer, ours func(context.Context, pgx.Tx, []outbox.Event) error) {
		es := events(messages(n, db.PayloadBytes))
		// Queue never takes COPY, so it tells the statement of any number.
		var b pgx.Batch
		if err := w.Queue(ctx, &b, es...); err != nil {
			firstErr = err
			return
		}
		sql, args := b.QueuedQueries[0].SQL, plain(b.QueuedQueries[0].Arguments)
		list = append(list, call{
			name, n,
			func(_ context.Context, tx pgx.Tx) error { return ours(ctx, tx, es) },
			func(_ context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, sql, args...); return err },
		})
	}
	write := func(w outbox.Writer) func(context.Context, pgx.Tx, []outbox.Event) error {
		return func(ctx context.Context, tx pgx.Tx, es []outbox.Event) error { return w.Write(ctx, tx, es...) }
	}
	add("`Write`", 1, ctx, rows, write(rows))
	add("`Write`, three headers of metadata", 1, withMetadata, rows, write(rows))
	add("`Write`, wal", 1, ctx, wal, write(wal))
	for _, n := range []int{10, 100} {
		add("`Write` (unnest)", n, ctx, rows, write(rows))
		add("`Write`, packed", n, ctx, packed, write(packed))
		add("`Write`, wal", n, ctx, wal, write(wal))
	}
	if firstErr != nil {
		return nil, firstErr
	}
	queue, err := db.queueCall(ctx)
	if err != nil {
		return nil, err
	}
	change, err := db.changeCall(ctx)
	if err != nil {
		return nil, err
	}
	// No notification but the first: a recording is of one and the same answer.
	river, err := riverClient(db.off, time.Hour)
	if err != nil {
		return nil, err
	}
	watermill, one := db.way(wayWatermill), messages(1, db.PayloadBytes)
	return append(list, queue, change, db.copyCall(1000), db.copyCall(10_000),
		call{"Watermill SQL `Publish`", 1, func(ctx context.Context, tx pgx.Tx) error { return watermill.write(ctx, tx, one) }, nil},
		call{"River `InsertTx`", 1, func(ctx context.Context, tx pgx.Tx) error { return riverInsert(ctx, tx, river, one) }, nil},
	), nil
}

func (db *database) queueCall(ctx context.Context) (call, error) {
	es := events(messages(1, db.PayloadBytes))
	var b pgx.Batch
	if err := outbox.Queue(ctx, &b, es...); err != nil {
		return call{}, err
	}
	sql, args := b.QueuedQueries[0].SQL, plain(b.QueuedQueries[0].Arguments)
	return call{
		"`Queue`", 1,
		func(ctx context.Context, tx pgx.Tx) error {
			var b pgx.Batch
			if err := outbox.Queue(ctx, &b, es...); err != nil {
				return err
			}
			return tx.SendBatch(ctx, &b).Close()
		},
		func(ctx context.Context, tx pgx.Tx) error {
			var b pgx.Batch
			b.Queue(sql, args...)
			return tx.SendBatch(ctx, &b).Close()
		},
	}, nil
}

func (db *database) changeCall(ctx context.Context) (call, error) {
	es := events(messages(1, db.PayloadBytes))
	var b pgx.Batch
	// The two transactions stay open side by side: each has its own row.
	q, err := outbox.Writer{}.QueueChange(ctx, &b, es, business, int64(2), 1)
	if err != nil {
		return call{}, err
	}
	sql, args := q.SQL, plain(q.Arguments)
	return call{
		"`Change`", 1,
		func(ctx context.Context, tx pgx.Tx) error {
			_, err := outbox.Writer{}.Change(ctx, tx, es, business, int64(1), 1)
			return err
		},
		func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, sql, args...); return err },
	}, nil
}

// copyCall compares a Write of so many events that it takes COPY with pgx's
// CopyFrom of the same rows.
func (db *database) copyCall(n int) call {
	list := messages(n, db.PayloadBytes)
	es, rows := events(list), make([][]any, n)
	for i, m := range list {
		rows[i] = rowOf(m)
	}
	return call{
		"`Write` (COPY)", n,
		func(ctx context.Context, tx pgx.Tx) error { return outbox.Write(ctx, tx, es...) },
		func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"outbox"}, columns, pgx.CopyFromRows(rows))
			return err
		},
	}
}

// plain gives args as a caller of pgx would have them: values of Go's own
// types, ids as the 16 bytes that pgx takes for a uuid.
func plain(args []any) []any {
	list := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case outbox.ID:
			list[i] = [16]byte(v)
		case *outbox.ID:
			list[i] = [16]byte(*v)
		case []string:
			list[i] = v
			if ids, err := parseIDs(v); err == nil {
				list[i] = ids
			}
		case driver.Valuer:
			value, err := v.Value()
			if err != nil {
				value = arg
			}
			list[i] = value
		default:
			list[i] = v
		}
	}
	return list
}

func parseIDs(texts []string) ([][16]byte, error) {
	ids := make([][16]byte, len(texts))
	for i, s := range texts {
		id, err := outbox.ParseID(s)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}

// measureClient measures what the calls cost in Go.
func measureClient(ctx context.Context, db *database, b *strings.Builder) error {
	list, err := db.calls(ctx)
	if err != nil {
		return err
	}
	lines := make([][]string, 0, len(list))
	for _, c := range list {
		fmt.Fprintf(db.Progress, "client: %s, %d events\n", c.name, c.events)
		ours, bare, err := db.costs(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		n := float64(c.events)
		line := []string{c.name, count(n), micros(ours.cpu / n), "–", "–", fmt.Sprintf("%.1f", ours.allocs/n), "–", "–", count(ours.bytes / n)}
		if c.bare != nil {
			line[3], line[4] = micros(bare.cpu/n), micros((ours.cpu-bare.cpu)/n)
			line[6], line[7] = fmt.Sprintf("%.1f", bare.allocs/n), fmt.Sprintf("%.1f", (ours.allocs-bare.allocs)/n)
		}
		lines = append(lines, line)
	}
	b.WriteString("What a call costs in Go for an event, without kernel and server: the connection gives the answers that the server gave to the same call before. " +
		"pgx alone runs the same statement with arguments that are ready (CopyFrom for COPY).\n\n")
	table(b, 1, []string{"call", "events", "µs CPU", "pgx alone", "beyond", "allocations", "pgx alone", "beyond", "bytes allocated"}, lines)
	return nil
}

// costs lets a call and pgx alone take turns.
func (db *database) costs(ctx context.Context, c call) (ours, bare cost, err error) {
	o, err := db.offline(ctx, c.ours)
	if err != nil {
		return cost{}, cost{}, err
	}
	defer o.close(ctx)
	runs := []*offline{o}
	if c.bare != nil {
		p, err := db.offline(ctx, c.bare)
		if err != nil {
			return cost{}, cost{}, err
		}
		defer p.close(ctx)
		runs = append(runs, p)
	}
	turns := make([][]cost, len(runs))
	for round := range db.Rounds + 1 {
		for i, run := range runs {
			spent, err := run.measure(db.Turn / 4)
			if err != nil {
				return cost{}, cost{}, err
			}
			if round > 0 {
				turns[i] = append(turns[i], spent)
			}
		}
	}
	middle := func(of []cost) cost {
		part := func(f func(cost) float64) float64 {
			values := make([]float64, len(of))
			for i := range of {
				values[i] = f(of[i])
			}
			return median(values)
		}
		return cost{part(func(c cost) float64 { return c.cpu }), part(func(c cost) float64 { return c.allocs }), part(func(c cost) float64 { return c.bytes })}
	}
	ours = middle(turns[0])
	if c.bare != nil {
		bare = middle(turns[1])
	}
	return ours, bare, nil
}

// offline is a call on a connection whose server is out of the way.
type offline struct {
	conn *pgx.Conn
	wire *replayConn
	once func() error
}

// offline runs the call on the server until its statements are prepared,
// records it once, and takes the server away. What it wrote is rolled back.
func (db *database) offline(ctx context.Context, run func(context.Context, pgx.Tx) error) (_ *offline, err error) {
	cfg, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	var wire *replayConn
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		wire = newReplayConn(conn)
		return wire, nil
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	o := &offline{conn: conn, wire: wire}
	tx, err := conn.Begin(ctx)
	for range 2 {
		if err == nil {
			err = run(ctx, tx)
		}
	}
	if err == nil {
		wire.record()
		err = run(ctx, tx)
	}
	if err == nil {
		err = wire.replay()
	}
	if err != nil {
		o.close(ctx)
		return nil, err
	}
	o.once = func() error { return run(ctx, tx) }
	return o, nil
}

// close brings the server back and ends the connection, and with it the
// transaction.
func (o *offline) close(ctx context.Context) {
	o.wire.set(live, nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = o.conn.Close(ctx)
}

// measure repeats the call for d.
func (o *offline) measure(d time.Duration) (cost, error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	spent, err := ownTime()
	if err != nil {
		return cost{}, err
	}
	n := 0
	for start := time.Now(); n == 0 || time.Since(start) < d; {
		for range 10 {
			if err := o.once(); err != nil {
				return cost{}, err
			}
			n++
		}
	}
	end, err := ownTime()
	if err != nil {
		return cost{}, err
	}
	runtime.ReadMemStats(&after)
	return cost{
		cpu:    (end - spent).Seconds() / float64(n),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, nil
}
