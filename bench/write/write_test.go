package write

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// testDatabase is one with all tables.
func testDatabase(t testing.TB) *database {
	t.Helper()
	cfg, err := Config{DSN: devstacktest.Database(t), Clients: 3, BatchClients: 2, Rounds: 1, Turn: 5 * time.Millisecond, Sizes: []int{1, 7}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	db, err := open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.close)
	return db
}

// TestEveryWayWritesItsEvents holds that the contenders do what they are
// measured at, in the transaction that they are given.
func TestEveryWayWritesItsEvents(t *testing.T) {
	db := testDatabase(t)
	ctx := t.Context()
	for i := range db.ways {
		w := db.ways[i]
		if w.count == nil {
			w.count = messagesInLog(t, db.off)
		}
		for _, n := range []int{1, 3, 1000} { // a row, unnest, COPY
			t.Run(fmt.Sprintf("%s/%d", w.name, n), func(t *testing.T) {
				if err := db.empty(ctx, &w); err != nil {
					t.Fatal(err)
				}
				before := mustCount(t, &w, db)
				list := messages(n, db.PayloadBytes)
				// On: a slot gives what has been flushed.
				if err := inTx(ctx, db.on, func(tx pgx.Tx) error { return w.write(ctx, tx, list) }); err != nil {
					t.Fatal(err)
				}
				if got := mustCount(t, &w, db) - before; got != n {
					t.Errorf("%d events, want %d", got, n)
				}
				undo := errors.New("undo")
				err := inTx(ctx, db.on, func(tx pgx.Tx) error { return errors.Join(w.write(ctx, tx, list), undo) })
				if err == nil || err.Error() != undo.Error() {
					t.Fatalf("the transaction to be rolled back: %v", err)
				}
				if got := mustCount(t, &w, db) - before; got != n {
					t.Errorf("%d events after a transaction was rolled back, want %d", got, n)
				}
			})
		}
	}
}

func mustCount(t *testing.T, w *way, db *database) int {
	t.Helper()
	n, err := w.count(t.Context(), db.off)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// messagesInLog makes a slot, and counts the events in the messages that it
// has given until now.
func messagesInLog(t *testing.T, pool *pgxpool.Pool) func(context.Context, *pgxpool.Pool) (int, error) {
	t.Helper()
	const slot = "bench_messages"
	if _, err := pool.Exec(t.Context(), `create publication bench_nothing`); err != nil {
		t.Fatal(err)
	}
	// A name of the database's own: slots belong to the server.
	var name string
	if err := pool.QueryRow(t.Context(), `select slot_name from pg_create_logical_replication_slot($1 || '_' || pg_backend_pid(), 'pgoutput')`, slot).Scan(&name); err != nil {
		t.Fatal(err)
	}
	total := 0
	return func(ctx context.Context, pool *pgxpool.Pool) (int, error) {
		rows, err := pool.Query(ctx, `select data from pg_logical_slot_get_binary_changes($1, null, null,
			'proto_version', '1', 'publication_names', 'bench_nothing', 'messages', 'true')`, name)
		if err != nil {
			return 0, err
		}
		var data []byte
		_, err = pgx.ForEachRow(rows, []any{&data}, func() error {
			if data[0] != 'M' {
				return nil
			}
			_, rest, _ := strings.Cut(string(data[1+1+8:]), "\x00") // flags, position, prefix
			const lengthAndTime = 4 + 8
			if int(binary.BigEndian.Uint32([]byte(rest))) != len(rest)-4 {
				return fmt.Errorf("a message of %d bytes says another length", len(rest))
			}
			n, err := countEnvelope([]byte(rest[lengthAndTime:]))
			total += n
			return err
		})
		return total, err
	}
}

// TestEveryTransactionChangesItsRow holds that no line of the table leaves
// out the business, or the event.
func TestEveryTransactionChangesItsRow(t *testing.T) {
	db := testDatabase(t)
	ctx := t.Context()
	changes := func() (n int) {
		if err := db.off.QueryRow(ctx, `select sum(changes) from accounts`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, x := range db.transactions() {
		t.Run(x.name, func(t *testing.T) {
			if err := db.empty(ctx, x.wayOrNone()); err != nil {
				t.Fatal(err)
			}
			began, err := db.walPosition(ctx)
			if err != nil {
				t.Fatal(err)
			}
			before := changes()
			for done := range 3 {
				if err := x.run(ctx, db.off, &client{done: done}); err != nil {
					t.Fatal(err)
				}
			}
			if got := changes() - before; got != 3 {
				t.Errorf("%d rows changed, want 3", got)
			}
			if _, err := db.verify(ctx, x.wayOrNone(), 3*x.events, began); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMissingEventsAreAnError(t *testing.T) {
	db := testDatabase(t)
	for i := range db.ways {
		w := &db.ways[i]
		began, err := db.walPosition(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.verify(t.Context(), w, 1, began); err == nil {
			t.Errorf("%s: an event that nobody wrote was found", w.name)
		}
	}
}

func TestRun(t *testing.T) {
	cfg := Config{DSN: devstacktest.Database(t), Clients: 3, BatchClients: 2, Rounds: 1, Turn: 5 * time.Millisecond, Sizes: []int{1, 7}, WarmWAL: 1 << 20, Progress: t.Output()}
	var out strings.Builder
	if err := Run(t.Context(), cfg, &out); err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]int{
		"\n| `Write` |": 1, "\n| `Queue` |": 1, "\n| `Change` |": 1, // client
		"\n| one statement | `outbox.Change` |": 1, // transactions
		"\n| `outbox.Write`, packed |":          3, // batches: events, CPU, bytes
		"\n| River `InsertManyFastTx` |":        3,
		"\n| Watermill SQL `Publish` |":         4, // with client
		"NaN":                                   0,
		"Inf":                                   0,
	} {
		if got := strings.Count(out.String(), part); got != want {
			t.Errorf("%q occurs %d times, want %d, in\n%s", part, got, want, &out)
		}
	}
}

func TestEveryProblemOfAConfigIsTold(t *testing.T) {
	err := Run(t.Context(), Config{Clients: -1, BatchClients: -1, Rounds: -1, Turn: -1, PayloadBytes: 1, Sizes: []int{0}, WarmWAL: -1, Parts: []string{"all"}}, t.Output())
	for _, field := range []string{"dsn", "clients", "batch-clients", "rounds", "turn", "payload-bytes", "sizes", "warm-wal", "parts"} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+field+": ") {
			t.Errorf("nothing about %s in: %v", field, err)
		}
	}
}

// BenchmarkCalls is the part "client" as Go benchmarks, so that one call can
// be profiled:
//
//	go test ./write -run '^$' -bench 'Calls/^Write$/1$' -cpuprofile cpu.out
func BenchmarkCalls(b *testing.B) {
	db := testDatabase(b)
	list, err := db.calls(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range list {
		for suffix, run := range map[string]func(context.Context, pgx.Tx) error{"": c.ours, ", pgx alone": c.bare} {
			if run == nil {
				continue
			}
			b.Run(fmt.Sprintf("%s%s/%d", strings.ReplaceAll(c.name, "`", ""), suffix, c.events), func(b *testing.B) {
				o, err := db.offline(b.Context(), run)
				if err != nil {
					b.Fatal(err)
				}
				defer o.close(b.Context())
				b.ReportAllocs()
				began, err := ownTime()
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if err := o.once(); err != nil {
						b.Fatal(err)
					}
				}
				end, err := ownTime()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(end-began)/float64(b.N*c.events), "cpu-ns/event")
			})
		}
	}
}
