package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// startCluster starts three brokers, which are killed at the end of the test.
func startCluster(t *testing.T) *devstack.KafkaCluster {
	t.Helper()
	c, err := devstack.StartKafkaCluster(t.Context(), devstack.KafkaClusterOptions{Dir: devstacktest.Dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range c.Brokers {
			_ = c.Broker(i).Kill()
		}
	})
	return c
}

// replicaFaults happen to the brokers of a cluster whose topics have three
// replicas, of which two must have a record.
func replicaFaults(c *devstack.KafkaCluster) []fault {
	return []fault{
		{name: "leader killed", long: true, do: func(w *world) {
			w.inSync(w.topics...)
			w.load.burst(100)
			w.flow(50)
			leader := w.leader(w.topics[0])
			w.must(c.Broker(leader).Kill())
			w.flow(100)
			w.must(c.Restart(w.t.Context(), leader))
		}},
		{name: "leader stands still", long: true, do: func(w *world) {
			w.inSync(w.topics...)
			w.load.burst(100)
			w.flow(50)
			leader := w.leader(w.topics[0])
			w.must(c.Broker(leader).Pause())
			w.flow(100) // by the one that takes over
			w.must(c.Broker(leader).Resume())
		}},
		{name: "two of three brokers killed", do: func(w *world) {
			w.inSync(w.topics...)
			w.load.burst(100)
			w.flow(50)
			w.must(c.Broker(1).Kill())
			w.must(c.Broker(2).Kill())
			w.written(300)
			w.must(c.Restart(w.t.Context(), 1))
			w.must(c.Restart(w.t.Context(), 2))
		}},
		{name: "too few replicas and the relay killed", again: anyNumber, do: func(w *world) { tooFewReplicas(w, c) }},
	}
}

// inSync waits until topics have three replicas in sync.
func (w *world) inSync(topics ...string) {
	w.t.Helper()
	client, err := kgo.NewClient(w.kafka...)
	w.must(err)
	defer client.Close()
	devstacktest.Wait(w.t, "the replicas to be in sync", patience, func() bool {
		found, err := kadm.NewClient(client).ListTopics(w.t.Context(), topics...)
		all := err == nil
		found.EachPartition(func(p kadm.PartitionDetail) { all = all && p.Err == nil && len(p.ISR) == 3 })
		return all
	})
}

// leader is the index of the broker that leads the first partition of a topic.
func (w *world) leader(topic string) int {
	w.t.Helper()
	client, err := kgo.NewClient(w.kafka...)
	w.must(err)
	defer client.Close()
	found, err := kadm.NewClient(client).ListTopics(w.t.Context(), topic)
	w.must(err)
	return int(found[topic].Partitions[0].Leader) - 1
}

// tooFewReplicas has the topics of events ask for all three replicas and takes
// one away, so that the leaders refuse every record with NOT_ENOUGH_REPLICAS,
// but take positions: the relay must not store one, nor confirm it, that the
// records have not reached.
func tooFewReplicas(w *world, c *devstack.KafkaCluster) {
	// An idempotent client would try for ever what may have been written.
	client, err := kgo.NewClient(append(slices.Clip(w.kafka), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0), kgo.ProduceRequestTimeout(time.Second))...)
	w.must(err)
	defer client.Close()
	admin := kadm.NewClient(client)
	three := "3"
	// A topic of its own, since what it gets is no event.
	probe := devstacktest.Name(w.t)
	_, err = admin.CreateTopic(w.t.Context(), 1, 3, map[string]*string{"min.insync.replicas": &three}, probe)
	w.must(err)
	w.alterTopics("min.insync.replicas", three)
	w.inSync(append(slices.Clip(w.topics), probe)...)
	w.load.burst(100)
	w.flow(50)
	away := (w.leader(probe) + 1) % len(c.Brokers) // the probe keeps its leader
	w.must(c.Broker(away).Kill())
	var last string
	devstacktest.Wait(w.t, "records to be refused", patience, func() bool {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		err := client.ProduceSync(ctx, &kgo.Record{Topic: probe}).FirstErr()
		if said := fmt.Sprint(err); said != last {
			w.t.Logf("the probe: %v", err)
			last = said
		}
		return errors.Is(err, kerr.NotEnoughReplicas)
	})
	w.written(300)
	w.delivered()
	w.relay.Kill()
	w.must(c.Restart(w.t.Context(), away))
	w.relay.Start()
	w.flow(100)
	w.alterTopics("min.insync.replicas", "2")
}
