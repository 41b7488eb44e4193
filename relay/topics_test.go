package relay_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay"
)

func (f *fixture) admin(t *testing.T) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.config.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// settings of a topic, with its partitions.
func settings(t *testing.T, admin *kadm.Client, topic string) (int, map[string]string) {
	t.Helper()
	details, err := admin.ListTopics(t.Context(), topic)
	if err != nil || details[topic].Err != nil {
		t.Fatal(err, details[topic].Err)
	}
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil || configs[0].Err != nil {
		t.Fatal(err, configs[0].Err)
	}
	values := make(map[string]string)
	for _, c := range configs[0].Configs {
		values[c.Key] = c.MaybeValue()
	}
	return len(details[topic].Partitions), values
}

// TestTopicsAreMadeAsConfigured has three topics made, each in another way, and
// one that is there left as it is, with a warning that says how to change it.
func TestTopicsAreMadeAsConfigured(t *testing.T) {
	f, registry, out := poisonFixture(t)
	f.config.TopicPartitions = 0
	f.config.Poison = relay.DeadLetter
	name := f.config.Source
	compacted, existing, unknown := name+".audit", name+".existing", relay.UnknownTopic
	f.config.TopicConfig = map[string]string{"segment.ms": "3600000"}
	f.config.Topics = append(f.config.Topics,
		relay.Topic{Name: compacted, Partitions: 1, Config: map[string]string{"cleanup.policy": "compact,delete", "retention.ms": "-1"}})
	admin := f.admin(t)
	one := "60000"
	if _, err := admin.CreateTopic(t.Context(), 2, 1, map[string]*string{"segment.ms": &one}, existing); err != nil {
		t.Fatal(err)
	}
	stop := f.start(t)
	var events []outbox.Event
	for _, topic := range []string{f.topic, compacted, existing} {
		e := f.event("42", 1)
		e.Topic = topic
		events = append(events, e)
	}
	f.write(t, events...)
	f.transaction(t, func(s script) { s.exec(rawRow, outbox.NewID(), "", 1, "{}", nil) })
	f.stored(t, registry, 4)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		topic      string
		partitions int
		want       map[string]string
	}{
		{f.topic, 3, map[string]string{"retention.ms": "604800000", "segment.ms": "3600000", "max.message.bytes": "20000", "cleanup.policy": "delete"}},
		{compacted, 1, map[string]string{"retention.ms": "-1", "segment.ms": "3600000", "cleanup.policy": "compact,delete"}},
		{existing, 2, map[string]string{"segment.ms": "60000"}},
		{f.config.DeadLetterTopic, 1, map[string]string{"retention.ms": "-1", "cleanup.policy": "delete"}},
	} {
		partitions, got := settings(t, admin, tt.topic)
		if partitions != tt.partitions {
			t.Errorf("%s has %d partitions, want %d", tt.topic, partitions, tt.partitions)
		}
		for key, want := range tt.want {
			if got[key] != want {
				t.Errorf("%s has %s=%s, want %s", tt.topic, key, got[key], want)
			}
		}
	}
	routed := false
	for _, r := range f.all(t, unknown) { // which all tests share
		routed = routed || value(r, "ce_source") == name
	}
	if !routed {
		t.Errorf("an event without a topic is not in %s", unknown)
	}
	warning := "topic is not as configured; it is left as it is"
	if out.count(warning) != 1 || out.count("segment.ms is 60000, not 3600000") != 1 ||
		out.count("kafka-configs.sh --bootstrap-server "+strings.Join(f.config.Brokers, ",")+" --alter --topic "+existing+" --add-config 'segment.ms=[3600000]'") != 1 {
		t.Error("the log does not say, once, that a topic differs and how to change it")
	}
}

// TestWhatABrokerHasIsASetting compares the settings that the relay knows with
// those of a real topic.
func TestWhatABrokerHasIsASetting(t *testing.T) {
	f, registry, _ := poisonFixture(t)
	stop := f.start(t)
	f.write(t, f.event("42", 1))
	f.stored(t, registry, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_, values := settings(t, f.admin(t), f.topic)
	if len(values) < 25 {
		t.Fatalf("the topic has %d settings", len(values))
	}
	f.config.Metrics = nil
	f.config.Topics = []relay.Topic{{Name: "a", Config: values}}
	if _, err := relay.New(f.config); err != nil {
		t.Errorf("New refuses what the broker has: %v", err)
	}
}

// TestATopicThatCanNotBeMadeAsConfiguredEndsTheRelay blames the operator, not
// the event: it is not set aside.
func TestATopicThatCanNotBeMadeAsConfiguredEndsTheRelay(t *testing.T) {
	for name, topic := range map[string]relay.Topic{
		"replicas": {Replication: 9},
		"a value":  {Config: map[string]string{"retention.ms": "a week"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, _ := poisonFixture(t)
			f.config.Poison = relay.DeadLetter
			topic.Name = f.topic
			f.config.Topics = []relay.Topic{topic}
			if err := f.start(t)(); err != nil {
				t.Fatal(err)
			}
			f.config.Metrics = prometheus.NewRegistry()
			f.write(t, f.event("42", 1))
			err := f.fails(t)
			if !strings.Contains(err.Error(), "topic "+f.topic+" can't be made as it is configured: ") || !strings.Contains(err.Error(), "--topic") {
				t.Errorf("Run: %v, want that the topic can't be made, and what to change", err)
			}
			if dead := f.all(t, f.config.DeadLetterTopic); len(dead) > 0 {
				t.Errorf("%d dead letters", len(dead))
			}
		})
	}
}
