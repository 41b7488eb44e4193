package devstack_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

func TestKafkaKeepsRecordsOverKillAndStop(t *testing.T) {
	skipShort(t)
	dir := devstacktest.Dir(t)
	begun := time.Now()
	k, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Kill() })
	t.Logf("first start took %v", time.Since(begun))
	port := portOf(t, k.Brokers[0])
	createTopic(t, k.Brokers, "orders")
	produce(t, k.Brokers, "orders", "one")

	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, k.PID)
	begun = time.Now()
	if k, err = devstack.StartKafka(t.Context(), devstack.KafkaOptions{Dir: dir, Port: port}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Kill() })
	t.Logf("start after a kill took %v", time.Since(begun))
	produce(t, k.Brokers, "orders", "two")

	begun = time.Now()
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("stop took %v", time.Since(begun))
	gone(t, k.PID)
	// Another port, and so another controller's port too.
	begun = time.Now()
	if k, err = devstack.StartKafka(t.Context(), devstack.KafkaOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Kill() })
	t.Logf("start after a stop took %v", time.Since(begun))
	consume(t, k.Brokers, "orders", "one", "two")
}

func TestKafkaSettingsWin(t *testing.T) {
	skipShort(t)
	k, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{
		Dir: devstacktest.Dir(t), Settings: map[string]string{"message.max.bytes": "2097152"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Kill() })
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	configs, err := kadm.NewClient(client).DescribeBrokerConfigs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "message.max.bytes" && c.MaybeValue() != "2097152" {
			t.Errorf("message.max.bytes = %s, want 2097152", c.MaybeValue())
		}
	}
}

func TestKfakeKeepsRecords(t *testing.T) {
	dir := t.TempDir()
	k, err := devstack.StartKfake(devstack.KfakeOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	createTopic(t, k.Brokers, "orders")
	produce(t, k.Brokers, "orders", "one")
	if _, err := devstack.StartKfake(devstack.KfakeOptions{Dir: dir}); err == nil {
		t.Error("a second kfake in the same folder started")
	}
	port := portOf(t, k.Brokers[0])
	k.Stop()
	if k, err = devstack.StartKfake(devstack.KfakeOptions{Dir: dir, Port: port}); err != nil {
		t.Fatal(err)
	}
	defer k.Stop()
	consume(t, k.Brokers, "orders", "one")
}

func createTopic(t *testing.T, brokers []string, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

func produce(t *testing.T, brokers []string, topic, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func consume(t *testing.T, brokers []string, topic string, want ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var got []string
	for len(got) < len(want) {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatalf("got %q, want %q: %v", got, want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}
