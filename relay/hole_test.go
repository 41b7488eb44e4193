package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay"
)

// mark is in the one record that a picky broker refuses. It can't be compressed.
const mark = "q7Xw2LmZ9RtB4VnKc8Yd"

// picky puts the fixture on a broker that refuses any batch with the mark in
// it, by err, and gives how often it has.
func (f *fixture) picky(t *testing.T, refusal *kerr.Error) *atomic.Int64 {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, f.topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f.config.Brokers = cluster.ListenAddrs()
	events := cluster.TopicInfo(f.topic).TopicID
	refused := new(atomic.Int64)
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		var marked bool
		for _, topic := range produce.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = partition.Partition, kerr.NotEnoughReplicas.Code // to be sent again
				if (topic.Topic == f.topic || topic.TopicID == events) && bytes.Contains(partition.Records, []byte(mark)) {
					marked, p.ErrorCode = true, refusal.Code
				}
				answer.Partitions = append(answer.Partitions, p)
			}
			response.Topics = append(response.Topics, answer)
		}
		if marked {
			refused.Add(1)
		}
		return response, nil, marked
	})
	return refused
}

// A laggard has the relay hear of a refusal only after it has had time to hand
// on much more.
type laggard struct{ once sync.Once }

func (l *laggard) OnProduceRecordUnbuffered(_ *kgo.Record, err error) {
	if err != nil {
		l.once.Do(func() { time.Sleep(200 * time.Millisecond) })
	}
}

// TestNothingOvertakesARefusedRecord drains a backlog with one record in it
// that the broker refuses: in the first batch that its partition gets, and far
// behind. While its refusal is on its way the relay goes on reading, and nothing
// of that may be in Kafka. Both the event that is named and what is set aside is
// that record alone, out of a batch of many.
func TestNothingOvertakesARefusedRecord(t *testing.T) {
	const n = 20_000
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		for name, at := range map[string]int64{"the first": 1, "in the first batch": 30, "far behind": n / 2} {
			t.Run(string(delivery)+"/"+name, func(t *testing.T) {
				f := newFixture(t)
				refused := f.picky(t, kerr.InvalidRecord)
				f.config.DeadLetterTopic = "dead"
				f.config.Delivery = delivery
				if err := f.start(t)(); err != nil { // makes the slot
					t.Fatal(err)
				}
				id := outbox.NewID()
				var events []outbox.Event
				for i := range int64(n) {
					e := f.event("42", i+1)
					e.Payload = fmt.Appendf(nil, `{"note":%q}`, strings.Repeat("x", 200))
					if i+1 == at {
						e.ID, e.Payload = id, []byte(mark)
					}
					events = append(events, e)
				}
				for chunk := range slices.Chunk(events, 100) {
					f.write(t, chunk...)
				}

				f.config.Kafka = []kgo.Opt{kgo.WithHooks(new(laggard))}
				err := f.fails(t)
				e, ok := errors.AsType[*relay.RecordError](err)
				if !ok || e.ID != id.String() || e.Commit == 0 || !errors.Is(err, kerr.InvalidRecord) {
					t.Errorf("Run: %v, want a RecordError for %v", err, id)
				}
				if refused.Load() < 2 {
					t.Errorf("the broker has refused the record %d times, want it in a batch and alone", refused.Load())
				}
				if got := sequences(t, f.all(t, f.topic)); len(got) > 0 && slices.Max(got) >= at {
					t.Fatalf("number %d is in the topic, although number %d was refused", slices.Max(got), at)
				}

				registry := prometheus.NewRegistry()
				f.config.Metrics, f.config.Poison, f.config.Kafka = registry, relay.DeadLetter, []kgo.Opt{kgo.WithHooks(new(laggard))}
				stop := f.start(t)
				f.stored(t, registry, n)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				var last int64
				var twice int
				behind := false
				for _, sequence := range sequences(t, f.all(t, f.topic)) {
					behind = behind || sequence > at
					if sequence == at || behind && sequence < at || sequence > last+1 && !(sequence == at+1 && last == at-1) {
						t.Fatalf("number %d stands behind number %d, where number %d is dead", sequence, last, at)
					}
					if sequence <= last {
						twice++
					}
					last = sequence
				}
				if last != n || delivery == relay.ExactlyOnce && twice > 0 {
					t.Errorf("the last is number %d, want %d; %d came again", last, n, twice)
				}
				dead := f.all(t, "dead")
				letter, err := cloudevent.Decode(dead[0])
				if err != nil || len(dead) != 1 || letter.ID != id.String() || letter.Sequence != at || value(dead[0], "walpost_reason") != "refused" {
					t.Errorf("%d dead letters, of %+v, %v; want one of %v", len(dead), letter, err, id)
				}
			})
		}
	}
}

// TestATopicThatShrinksUnderTheRelay lowers a topic's limit while the relay
// counts on the old one: the broker then refuses batches of records that are
// all small enough, and one that is not.
func TestATopicThatShrinksUnderTheRelay(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			f := newFixture(t)
			registry := prometheus.NewRegistry()
			f.config.Metrics, f.config.Poison, f.config.DeadLetterTopic = registry, relay.DeadLetter, "_"+f.config.Source+".dead"
			f.config.TopicPartitions, f.config.Delivery = 1, delivery
			stop := f.start(t)
			f.write(t, f.event("42", 1))
			f.stored(t, registry, 1)
			client, err := kgo.NewClient(kgo.SeedBrokers(f.config.Brokers...))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			small := "10000"
			_, err = kadm.NewClient(client).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &small}}, f.topic)
			if err != nil {
				t.Fatal(err)
			}
			const n = 1000
			var events []outbox.Event
			for i := range int64(n - 1) {
				e := f.event("42", i+2)
				e.Payload = noise(500)
				if i == 300 {
					e.Payload = noise(20_000)
				}
				events = append(events, e)
			}
			for chunk := range slices.Chunk(events, 50) {
				f.write(t, chunk...)
			}
			f.stored(t, registry, n)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var first []int64
			for _, sequence := range sequences(t, f.all(t, f.topic)) {
				if len(first) == 0 || sequence > first[len(first)-1] {
					first = append(first, sequence)
				} else if sequence < 302 && first[len(first)-1] > 302 {
					t.Errorf("number %d comes again behind number %d", sequence, first[len(first)-1])
				}
			}
			if len(first) != n-1 || first[n-2] != n || slices.Contains(first, 302) {
				t.Errorf("%d events came, the last is number %d; want all but number 302", len(first), first[len(first)-1])
			}
			if dead := f.all(t, f.config.DeadLetterTopic); len(dead) != 1 || value(dead[0], "walpost_reason") != "too-large" || !slices.Equal(sequences(t, dead), []int64{302}) {
				t.Errorf("%d dead letters, want number 302", len(dead))
			}
			if got := letters(t, registry)["too-large"]; got != 1 {
				t.Errorf("relay_dead_letters_total is %v, want 1", got)
			}
		})
	}
}

// TestATopicThatMayNotBeWrittenTo denies a topic: halting, the relay says how to
// allow it; else its events are set aside, and those of another topic come.
func TestATopicThatMayNotBeWrittenTo(t *testing.T) {
	f := newFixture(t)
	f.picky(t, kerr.TopicAuthorizationFailed)
	f.config.DeadLetterTopic = "dead"
	if err := f.start(t)(); err != nil { // makes the slot
		t.Fatal(err)
	}
	denied := f.event("42", 1)
	denied.Payload = []byte(mark)
	f.write(t, denied, f.event("42", 2))
	err := f.fails(t)
	if e, ok := errors.AsType[*relay.RecordError](err); !ok || !strings.Contains(e.Hint, "kafka-acls.sh --add --producer --topic "+f.topic) {
		t.Errorf("Run: %v, want a RecordError with the way to allow it", err)
	}
	registry := prometheus.NewRegistry()
	f.config.Metrics, f.config.Poison = registry, relay.DeadLetter
	stop := f.start(t)
	f.stored(t, registry, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := letters(t, registry); got["topic-denied"] != 1 {
		t.Errorf("relay_dead_letters_total is %v, want one for topic-denied", got)
	}
	if got := sequences(t, f.all(t, f.topic)); !slices.Equal(got, []int64{2}) {
		t.Errorf("the topic has sequences %v, want 2", got)
	}
}

// TestARefusalThatPasses refuses a record in its batch and takes it when it
// comes alone: nothing is set aside, and the relay does not halt.
func TestARefusalThatPasses(t *testing.T) {
	f := newFixture(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, f.topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f.config.Brokers = cluster.ListenAddrs()
	events := cluster.TopicInfo(f.topic).TopicID
	var refused atomic.Bool
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		if refused.Load() || len(produce.Topics) != 1 || produce.Topics[0].TopicID != events && produce.Topics[0].Topic != f.topic {
			return nil, nil, false
		}
		refused.Store(true)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		answer := kmsg.NewProduceResponseTopic()
		answer.Topic, answer.TopicID = produce.Topics[0].Topic, produce.Topics[0].TopicID
		p := kmsg.NewProduceResponseTopicPartition()
		p.Partition, p.ErrorCode = produce.Topics[0].Partitions[0].Partition, kerr.CorruptMessage.Code
		answer.Partitions = append(answer.Partitions, p)
		response.Topics = append(response.Topics, answer)
		return response, nil, true
	})
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	if err := f.start(t)(); err != nil { // makes the slot
		t.Fatal(err)
	}
	registry = prometheus.NewRegistry()
	f.config.Metrics = registry
	var want []int64
	var all []outbox.Event
	for i := range int64(3000) {
		e := f.event("42", i+1)
		e.Payload = noise(1000)
		all, want = append(all, e), append(want, i+1)
	}
	f.write(t, all...)
	stop := f.start(t)
	f.stored(t, registry, len(all))
	f.write(t, f.event("42", 3001))
	f.stored(t, registry, len(all)+1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := sequences(t, f.all(t, f.topic)); !slices.Equal(got, append(want, 3001)) {
		t.Errorf("%d events came, want 1 to 3001 once and in order", len(got))
	}
	if got := letters(t, registry); len(got) > 0 {
		t.Errorf("relay_dead_letters_total is %v, want none", got)
	}
}
