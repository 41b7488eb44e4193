package devstack_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// TestKafkaClusterLosesBrokers kills one of three, which nobody notices, then
// has a topic ask for a record in all three, which it then refuses, and brings
// the broker back.
func TestKafkaClusterLosesBrokers(t *testing.T) {
	skipShort(t)
	begun := time.Now()
	c, err := devstack.StartKafkaCluster(t.Context(), devstack.KafkaClusterOptions{Dir: devstacktest.Dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	t.Logf("start took %v", time.Since(begun))
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(t.Context(), 1, -1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	put := func(value string) error { return client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr() }
	if err := put("with three"); err != nil {
		t.Fatal(err)
	}
	detail := func() kadm.PartitionDetail {
		found, err := admin.ListTopics(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		return found["orders"].Partitions[0]
	}
	if got := detail(); len(got.Replicas) != 3 {
		t.Fatalf("the topic has replicas on %v, want three", got.Replicas)
	}
	leader := int(detail().Leader) - 1
	if err := c.Restart(t.Context(), leader); err == nil {
		t.Error("a running broker was started again")
	}
	begun = time.Now()
	if err := c.Broker(leader).Kill(); err != nil {
		t.Fatal(err)
	}
	if err := put("with two"); err != nil {
		t.Fatal(err)
	}
	t.Logf("the leader's death took %v", time.Since(begun))
	devstacktest.Wait(t, "the dead broker to leave the in-sync replicas", 30*time.Second, func() bool { return len(detail().ISR) == 2 })

	three := "3"
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "min.insync.replicas", Value: &three}}, "orders"); err != nil {
		t.Fatal(err)
	}
	impatient, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.DefaultProduceTopic("orders"),
		kgo.DisableIdempotentWrite(), kgo.RecordRetries(0)) // an idempotent one tries for ever what may have been written
	if err != nil {
		t.Fatal(err)
	}
	defer impatient.Close()
	devstacktest.Wait(t, "a record to be refused", 30*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return errors.Is(impatient.ProduceSync(ctx, kgo.StringRecord("refused")).FirstErr(), kerr.NotEnoughReplicas)
	})
	begun = time.Now()
	if err := c.Restart(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	t.Logf("restart took %v", time.Since(begun))
	if err := put("with three again"); err != nil {
		t.Fatal(err)
	}
	if err := c.Broker(leader).Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Broker(leader).Resume(); err != nil {
		t.Fatal(err)
	}
	if err := put("and again"); err != nil {
		t.Fatal(err)
	}
}
