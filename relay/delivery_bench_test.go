package relay_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay"
)

// BenchmarkDelivery writes b.N events at 2,000 a second, one in a transaction,
// to twelve partitions, and reports how long after the begin of its transaction
// each was read by a consumer of committed records, in both ways to deliver:
// go test ./relay -run '^$' -bench Delivery -benchtime 10000x.
func BenchmarkDelivery(b *testing.B) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		b.Run(string(delivery), func(b *testing.B) {
			f := newFixture(b)
			f.config.TopicPartitions = 12
			f.config.Delivery = delivery
			stop := f.start(b)
			f.write(b, f.event("first", 1)) // makes the topic
			first, read := f.consume(b, b.N+1)
			<-first
			pool, err := pgxpool.New(b.Context(), f.config.Postgres+"&synchronous_commit=on") // the walsender sends what is flushed
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
				if wait := time.Until(began.Add(time.Duration(i) * time.Second / 2000)); wait > 0 {
					time.Sleep(wait) // the pace is what is measured
				}
				due <- i
			}
			close(due)
			writers.Wait()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "events/s")
			latencies := (<-read)[1:] // without the first
			slices.Sort(latencies)
			for _, q := range []float64{.5, .99} {
				b.ReportMetric(float64(latencies[int(q*float64(len(latencies)-1))].Microseconds())/1e3, fmt.Sprintf("p%.0f-ms", 100*q))
			}
			if err := stop(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkDrainDelivery publishes a backlog of b.N events, ten in a
// transaction, in both ways to deliver, until a consumer of committed records
// has them: go test ./relay -run '^$' -bench DrainDelivery -benchtime 200000x.
func BenchmarkDrainDelivery(b *testing.B) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		b.Run(string(delivery), func(b *testing.B) {
			f := newFixture(b)
			f.config.TopicPartitions = 12
			f.config.Delivery = delivery
			stop := f.start(b)
			f.write(b, f.event("first", 1)) // makes the topic
			first, read := f.consume(b, b.N+1)
			<-first
			if err := stop(); err != nil {
				b.Fatal(err)
			}
			f.backlog(b)
			before := cpu(b)
			b.ResetTimer()
			stop = f.start(b)
			<-read
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/event") // the reader's too
			if err := stop(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// backlog writes b.N events, ten in a transaction.
func (f *fixture) backlog(b *testing.B) {
	b.Helper()
	for i := 0; i < b.N; i += 10 {
		f.transaction(b, func(s script) {
			for j := i; j < min(i+10, b.N); j++ {
				s.row(f.event(fmt.Sprint(j%10_000), 1))
			}
		})
	}
}

// consume reads n committed records of the topic. It closes first when it has
// one, and at the end gives how long after its time each came.
func (f *fixture) consume(b *testing.B, n int) (first chan struct{}, latencies <-chan []time.Duration) {
	b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.config.Brokers...), kgo.ConsumeTopics(f.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.MetadataMinAge(100*time.Millisecond), kgo.UnknownTopicRetries(-1))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 5*time.Minute)
	first = make(chan struct{})
	done := make(chan []time.Duration, 1)
	go func() {
		defer cancel()
		defer client.Close()
		latencies := make([]time.Duration, 0, n)
		for len(latencies) < n && ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			now := time.Now()
			fetches.EachRecord(func(r *kgo.Record) {
				if latencies = append(latencies, now.Sub(r.Timestamp)); len(latencies) == 1 {
					close(first)
				}
			})
		}
		if len(latencies) < n {
			b.Errorf("read %d records of %d", len(latencies), n)
		}
		done <- latencies
	}()
	return first, done
}
