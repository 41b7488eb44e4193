package retention_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/limits"
)

func kafkaClient(t *testing.T, brokers []string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// create makes a topic and returns when the broker knows it.
func create(t *testing.T, client *kgo.Client, topic string, config map[string]*string) {
	t.Helper()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(t.Context(), 1, 1, config, topic); err != nil {
		t.Fatal(err)
	}
	devstacktest.Wait(t, "the broker to know topic "+topic, 30*time.Second, func() bool {
		configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
		return err == nil && len(configs) == 1 && configs[0].Err == nil
	})
}

// largest gives an event of exactly limit bytes as the Writer counts them, of
// the kind whose record is the largest: names, version and number of headers
// at their bounds, and nothing in it that compresses.
func largest(topic string, limit int) outbox.Event {
	chacha := rand.NewChaCha8([32]byte{})
	letters := func(n int) string {
		b := make([]byte, n)
		_, _ = chacha.Read(b) // never fails
		for i := range b {
			b[i] = 'A' + b[i]%58
		}
		return string(b)
	}
	e := outbox.Event{
		Topic: topic, AggregateType: letters(512), AggregateID: letters(512), AggregateVersion: math.MaxInt64,
		Type: letters(512), Headers: map[string]string{},
	}
	size := 3 * 512
	for i := range 64 {
		name, value := fmt.Sprintf("h%02d", i), letters(70) // a length of two bytes
		e.Headers[name] = value
		size += len(name) + len(value)
	}
	e.Payload = make([]byte, limit-size)
	_, _ = chacha.Read(e.Payload)
	return e
}

// TestTheLargestEventGoesThrough writes the largest event that the limits of a
// topic allow, in every mode, for topics of several limits, and finds each in
// Kafka; with one byte more the Writer refuses it.
func TestTheLargestEventGoesThrough(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t)).withRelay()
	w.relay.Source = w.topic + strings.Repeat("s", 255-len(w.topic))
	client := kafkaClient(t, w.relay.Brokers)
	topics := map[string]*string{ // with their max.message.bytes; nil is the broker's
		w.topic + ".default": nil, w.topic + ".small": new("20000"), w.topic + ".large": new("3000000"),
	}
	var names []string
	for topic, bytes := range topics {
		config := map[string]*string{}
		if bytes != nil {
			config["max.message.bytes"] = bytes
		}
		create(t, client, topic, config)
		names = append(names, topic)
	}
	// Twice, as two services' lists put together may name one.
	fetched, err := limits.Fetch(t.Context(), client, append(names, names[0])...)
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]int{".default": 1048588 - limits.Overhead, ".small": 20000 - limits.Overhead, ".large": 3000000 - limits.Overhead} {
		if got := fetched[w.topic+topic]; got != want || len(fetched) != 3 {
			t.Errorf("limit of topic %s: %d (%v), want %d", topic, got, fetched, want)
		}
	}

	stop := w.start()
	sent := map[string][]byte{}
	for _, mode := range []outbox.Mode{outbox.Rows, outbox.Packed, outbox.WAL} {
		writer := outbox.Writer{Mode: mode, TopicMaxBytes: fetched}
		for _, topic := range names {
			err := pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
				more := largest(topic, fetched[topic]+1)
				if e, ok := errors.AsType[*outbox.EventError](writer.Write(t.Context(), tx, more)); !ok || e.Field != "Payload" || !strings.Contains(e.Hint, fmt.Sprint(fetched[topic])) {
					t.Errorf("%v: one byte more for %s: %v, want it refused with the limit", mode, topic, e)
				}
				event := largest(topic, fetched[topic])
				event.ID = outbox.NewID()
				sent[event.ID.String()] = event.Payload
				return writer.Write(t.Context(), tx, event)
			})
			if err != nil {
				t.Fatalf("%v: the largest event for %s: %v", mode, topic, err)
			}
		}
	}
	reader := kafkaClient(t, w.relay.Brokers, kgo.ConsumeTopics(names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(sent) > 0 && ctx.Err() == nil {
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			for _, h := range r.Headers {
				if id := string(h.Value); h.Key == "ce_id" {
					if !bytes.Equal(sent[id], r.Value) {
						t.Errorf("event %s came with another payload, or twice", id)
					}
					delete(sent, id)
				}
			}
		})
	}
	if len(sent) > 0 {
		t.Errorf("%d of 9 largest events did not come", len(sent))
	}
	stop()
}

// TestLimitsThatCannotBeHad asks for topics that are missing, too small, and
// may not be described.
func TestLimitsThatCannotBeHad(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: this test needs a real server")
	}
	dir := devstacktest.Dir(t)
	ca, err := devstack.NewCA(dir + "/ca")
	if err != nil {
		t.Fatal(err)
	}
	kafka, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{
		Dir: dir + "/kafka", Security: &devstack.KafkaSecurity{CA: ca, Users: map[string]string{"writer": "secret"}},
		Settings: map[string]string{
			"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kafka.Kill(); err != nil {
			t.Error(err)
		}
	})
	admin := kafkaClient(t, kafka.Brokers)
	for topic, bytes := range map[string]string{"good": "1000000", "tiny": "2048"} {
		create(t, admin, topic, map[string]*string{"max.message.bytes": &bytes})
	}
	found, err := limits.Fetch(t.Context(), admin, "good", "tiny", "missing", "no topic's name")
	if err == nil || found != nil {
		t.Fatalf("Fetch = %v, %v; want an error and no limits", found, err)
	}
	for _, want := range []string{"topic tiny: max.message.bytes 2048 leaves nothing", "topic missing: UNKNOWN_TOPIC_OR_PARTITION", "kafka-topics.sh --create --topic missing", "topic no topic's name: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "topic good") {
		t.Errorf("%v names a topic that is fine", err)
	}
	stranger := kafkaClient(t, kafka.Secure.Plaintext, kgo.SASL(plain.Auth{User: "writer", Pass: "secret"}.AsMechanism()))
	_, err = limits.Fetch(t.Context(), stranger, "good")
	if err == nil || !strings.Contains(err.Error(), "topic good: TOPIC_AUTHORIZATION_FAILED") || !strings.Contains(err.Error(), "kafka-acls.sh --add --operation DescribeConfigs --topic good") {
		t.Errorf("without rights: %v, want it to name the topic and what to allow", err)
	}
	if found, err := limits.Fetch(t.Context(), stranger); err != nil || len(found) != 0 {
		t.Errorf("Fetch of no topics = %v, %v", found, err)
	}
}
