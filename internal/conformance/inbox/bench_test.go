package inbox_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// An account is about as large as events usually are.
type account struct {
	Owner string
	Cents int64
	Note  string
}

// BenchmarkInbox handles events that wait in Kafka, of a thousand keys in four
// partitions, with a handler that writes one row, and with one that does
// nothing, without PostgreSQL. cpu is that of this process: Kafka client,
// decoding, scheduling and pgx.
func BenchmarkInbox(b *testing.B) {
	for _, concurrency := range []int{1, 8} {
		b.Run(fmt.Sprintf("row/concurrency=%d", concurrency), func(b *testing.B) { benchmark(b, concurrency, true) })
	}
	b.Run("nothing/concurrency=8", func(b *testing.B) { benchmark(b, 8, false) })
	b.Run("bare/concurrency=8", bare)
}

// bare is what the handler's transaction costs by itself: the same row, with
// no Kafka and no inbox.
func bare(b *testing.B) {
	w := newWorld(b, 1)
	w.exec(b, `create table accounts (owner text, cents bigint)`)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				err := pgx.BeginFunc(b.Context(), w.pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(b.Context(), `insert into accounts (owner, cents) values ($1, $2)`, "k", i)
					return err
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	report(b, cpu(b)-before)
}

func report(b *testing.B, used time.Duration) {
	b.Helper()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/event")
}

func benchmark(b *testing.B, concurrency int, row bool) {
	w := newWorld(b, 4)
	w.exec(b, `create table accounts (owner text, cents bigint)`)
	typed := outbox.Typed[account]{Name: "AccountChanged", Topic: w.topic, AggregateType: "account"}
	produceAccounts(b, w, typed, b.N)
	config := w.config(b)
	config.Log, config.Concurrency, config.CommitEvery = nil, concurrency, time.Second
	var handled atomic.Int64
	done := make(chan struct{})
	count := func() {
		if handled.Add(1) == int64(b.N) {
			close(done)
		}
	}
	if !row {
		config.Pool = nil
	}
	config.Hooks = []inbox.Hook{onHandled(count)}
	in, err := inbox.New(config)
	if err != nil {
		b.Fatal(err)
	}
	if row {
		err = inbox.Handle(in, typed, func(ctx context.Context, tx pgx.Tx, e inbox.Received[account]) error {
			_, err := tx.Exec(ctx, `insert into accounts (owner, cents) values ($1, $2)`, e.Value.Owner, e.Value.Cents)
			return err
		})
	} else {
		err = inbox.HandleFunc(in, typed, func(context.Context, inbox.Received[account]) error { return nil })
	}
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	stop := run(b, in)
	<-done
	report(b, cpu(b)-before)
	if err := stop(); err != nil {
		b.Fatal(err)
	}
	if n := value[int](b, w, `select count(*) from accounts`); row && n != b.N {
		b.Fatalf("%d rows of %d events", n, b.N)
	}
}

type onHandled func()

func (f onHandled) OnHandled(context.Context, inbox.Info) { f() }

func produceAccounts(b *testing.B, w *world, typed outbox.Typed[account], n int) {
	b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for i := range n {
		key := fmt.Sprint(i % 1000)
		e, err := typed.Event(key, int64(i), account{Owner: key, Cents: int64(i), Note: strings.Repeat("x", 350)})
		if err != nil {
			b.Fatal(err)
		}
		client.Produce(b.Context(), cloudevent.Record(w.topic, &cloudevent.Event{
			ID: outbox.NewID().String(), Source: "bench", Type: e.Type, Subject: key, AggregateType: "account", AggregateVersion: int64(i),
			Time: time.Now(), Sequence: int64(i + 1), Position: "1/16/B374D848/0", Data: e.Payload,
			Headers: []cloudevent.Header{{Name: "requestId", Value: "r"}, {Name: "userId", Value: "u"}},
		}), func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// cpu is what this process has used, in user mode and in the kernel.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
