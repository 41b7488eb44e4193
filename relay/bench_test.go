package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
)

// acknowledgements sees every record that Kafka has acknowledged, as a hook of
// the relay's Kafka client.
type acknowledgements struct {
	mu        sync.Mutex
	topic     string
	count     int
	latencies []time.Duration // from the begin of the transaction
	want      int
	done      chan struct{} // closed when count reaches want
}

func (a *acknowledgements) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	if err != nil || r.Topic != a.topic {
		return
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count++
	a.latencies = append(a.latencies, now.Sub(r.Timestamp))
	if a.count == a.want {
		close(a.done)
	}
}

func (a *acknowledgements) quantile(q float64) time.Duration {
	slices.Sort(a.latencies)
	return a.latencies[int(q*float64(len(a.latencies)-1))]
}

func (f *fixture) observe(want int) *acknowledgements {
	a := &acknowledgements{topic: f.topic, want: want, done: make(chan struct{})}
	f.config.Kafka = []kgo.Opt{kgo.WithHooks(a)}
	return a
}

// BenchmarkDrain publishes a backlog of b.N events of 400 bytes, ten in a
// transaction: go test ./relay -run '^$' -bench Drain -benchtime 200000x.
// The CPU time is this process's, and so the relay's alone, and the
// walsender's: it is one process a slot, and so the ceiling of the slot's
// relay. The others are compared with the rows of the same run.
func BenchmarkDrain(b *testing.B) {
	var rows drained
	b.Run("rows", func(b *testing.B) { rows = drain(b, outbox.Rows, drained{}) })
	b.Run("packed", func(b *testing.B) { drain(b, outbox.Packed, rows) })
	b.Run("wal", func(b *testing.B) { drain(b, outbox.WAL, rows) })
}

// A drained is what a drain took for each event, in nanoseconds.
type drained struct{ cpu, sender, wall float64 }

func drain(b *testing.B, mode outbox.Mode, rows drained) (d drained) {
	f := newFixture(b)
	f.config.TopicPartitions = 12
	stop := f.start(b) // makes the slot
	if err := stop(); err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var events []outbox.Event
	for i := 0; i < b.N; i++ {
		e := f.event(fmt.Sprint(i%10_000), 1)
		e.Payload = payload(random)
		if events = append(events, e); len(events) == 10 || i == b.N-1 {
			f.transaction(b, func(s script) { s.write(mode, events...) })
			events = events[:0]
		}
	}
	acks := f.observe(b.N)
	before := cpu(b)
	b.ResetTimer()
	stop = f.start(b)
	<-acks.done
	b.StopTimer()
	sender, err := f.senderCPU(b)
	if err != nil {
		b.Logf("no walsender-µs/event: %v", err)
	}
	d.sender = float64(sender) / float64(b.N)
	d.cpu, d.wall = float64(cpu(b)-before)/float64(b.N), float64(b.Elapsed())/float64(b.N)
	b.ReportMetric(d.cpu/1e3, "cpu-µs/event")
	b.ReportMetric(1e9/d.wall, "events/s")
	if sender != 0 {
		b.ReportMetric(d.sender/1e3, "walsender-µs/event")
	}
	if rows.sender != 0 && sender != 0 {
		b.ReportMetric(d.sender/rows.sender, "walsender-vs-rows")
	}
	if rows.wall != 0 {
		b.ReportMetric(rows.wall/d.wall, "events/s-vs-rows")
		b.ReportMetric(d.cpu/rows.cpu, "cpu-vs-rows")
	}
	if err := stop(); err != nil {
		b.Fatal(err)
	}
	return d
}

// payload gives 400 bytes of JSON, half of which no compression makes smaller:
// Kafka's client and PostgreSQL, for packed rows, both compress.
func payload(random *rand.Rand) []byte {
	var b [100]byte
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return fmt.Appendf(nil, `{"id":"%x","email":"ada.%x@example.org","fullName":"Ada Lovelace","dateOfBirth":"1990-12-10","status":"active","createdAt":"2026-11-24T09:30:00.000000Z","updatedAt":"2026-11-24T09:30:00.000000Z","note":"%x"}`, b[:16], b[16:20], b[20:])
}

// senderCPU is the CPU time of the walsender that the relay reads from, where
// PostgreSQL runs on this machine and that is Linux.
func (f *fixture) senderCPU(b *testing.B) (time.Duration, error) {
	var pid int
	if err := f.conn.QueryRow(b.Context(), `select active_pid from pg_replication_slots where database = current_database()`).Scan(&pid); err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Behind the name in parentheses: fields 14 and 15 of proc(5), user and
	// system time in hundredths of a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLatency writes b.N events at a steady rate, one in a transaction,
// and reports how long after the begin of its transaction each was
// acknowledged by Kafka: go test ./relay -run '^$' -bench Latency -benchtime 5000x.
func BenchmarkLatency(b *testing.B) {
	for _, rate := range []int{500, 2000} {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			f := newFixture(b)
			first := f.observe(1)
			stop := f.start(b)
			f.write(b, f.event("first", 1)) // makes the topic
			<-first.done
			if err := stop(); err != nil {
				b.Fatal(err)
			}
			acks := f.observe(b.N)
			stop = f.start(b)
			// The walsender sends what is flushed; without synchronous commits
			// that would wait for the WAL writer's next round.
			pool, err := pgxpool.New(b.Context(), f.config.Postgres+"&synchronous_commit=on")
			if err != nil {
				b.Fatal(err)
			}
			defer pool.Close()
			due := make(chan int)
			var writers sync.WaitGroup
			for range 4 {
				writers.Go(func() {
					for i := range due {
						if err := f.queue(b.Context(), pool, f.event(fmt.Sprint(i), 1)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			began := time.Now()
			for i := range b.N {
				at := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
				if wait := time.Until(at); wait > 0 {
					time.Sleep(wait) // the pace is what is measured
				}
				due <- i
			}
			close(due)
			writers.Wait()
			<-acks.done
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "events/s")
			b.ReportMetric(float64(acks.quantile(.5).Microseconds())/1e3, "p50-ms")
			b.ReportMetric(float64(acks.quantile(.99).Microseconds())/1e3, "p99-ms")
			if err := stop(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// queue writes one event in a transaction of one round trip.
func (f *fixture) queue(ctx context.Context, pool *pgxpool.Pool, e outbox.Event) error {
	var batch pgx.Batch
	batch.Queue("begin")
	if err := outbox.Queue(ctx, &batch, e); err != nil {
		return err
	}
	batch.Queue("commit")
	return pool.SendBatch(ctx, &batch).Close()
}
