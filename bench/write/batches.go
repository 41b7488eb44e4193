package write

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// measureBatches compares the ways to write many events in a transaction.
func measureBatches(ctx context.Context, db *database, b *strings.Builder) error {
	names := []string{wayRows, wayUnnest, wayCopy, wayExec, wayPacked, wayWAL, wayWatermill, wayRiver, wayRiverFast}
	head := []string{"`BEGIN`, events, `COMMIT`; events in a transaction:"}
	lines := make([][]string, len(names))
	walLines, cpuLines := make([][]string, len(names)), make([][]string, len(names))
	for i, name := range names {
		lines[i], walLines[i], cpuLines[i] = []string{quoted(name)}, []string{quoted(name)}, []string{quoted(name)}
	}
	for _, n := range db.Sizes {
		head = append(head, count(float64(n)))
		list := messages(n, db.PayloadBytes)
		contenders := make([]contender, 0, len(names))
		for _, name := range names {
			w := db.way(name)
			contenders = append(contenders, contender{name: name, way: &w, events: n, run: func(ctx context.Context, pool *pgxpool.Pool, _ *client) error {
				return inTx(ctx, pool, func(tx pgx.Tx) error { return w.write(ctx, tx, list) })
			}})
		}
		turns, err := db.rounds(ctx, course{fmt.Sprintf("batches of %d events", n), db.off, db.BatchClients, db.Turn}, contenders)
		if err != nil {
			return err
		}
		perSecond := func(t turn) float64 { return t.perSecond }
		rate, relative := medians(turns, perSecond), ratios(turns, 0, perSecond)
		wal := medians(turns, func(t turn) float64 { return t.walBytes / float64(n) })
		cpu := medians(turns, func(t turn) float64 { return (t.goCPU + t.serverCPU) / float64(n) })
		for i := range names {
			lines[i] = append(lines[i], fmt.Sprintf("%s (%s)", ratio(relative[i][0]), count(rate[i]*float64(n))))
			walLines[i] = append(walLines[i], count(wal[i]))
			cpuLines[i] = append(cpuLines[i], micros(cpu[i]))
		}
	}
	fmt.Fprintf(b, "Many events in a transaction, %d clients, `synchronous_commit` off: events/s as a ratio to `outbox.Write`, higher is better, and in parentheses as they were.\n\n", db.BatchClients)
	table(b, 1, head, lines)
	b.WriteString("CPU of the clients and of the server's sessions together for an event in the same run, µs, lower is better; it depends less than events/s on what else the machine does.\n\n")
	table(b, 1, head, cpuLines)
	b.WriteString("Bytes of write-ahead log for an event in the same run, which is what replication and a relay have to read.\n\n")
	table(b, 1, head, walLines)
	return nil
}

// quoted sets a name of Go in code, up to its comma.
func quoted(name string) string {
	if !strings.HasPrefix(name, "outbox.") {
		return name
	}
	name, rest, found := strings.Cut(name, ",")
	if found {
		rest = "," + rest
	}
	return "`" + name + "`" + rest
}
