package relay

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
)

// A topicPlan is how a topic is made. Where a topic is there already, what the
// operator has set is compared with it: the other settings are defaults, which
// nobody asked for.
type topicPlan struct {
	partitions  int32
	replication int16
	config      map[string]string
	wanted      Topic // of it, what the operator has set
}

// retentionDefault is how long topics keep events that nobody has given
// another time: 7 days.
const retentionDefault = "604800000"

// plan gives how name is made.
func (c *Config) plan(name string) topicPlan {
	wanted := Topic{Name: name, Config: make(map[string]string)}
	p := topicPlan{partitions: 3, replication: -1, config: map[string]string{"retention.ms": retentionDefault}}
	if name == c.DeadLetterTopic {
		// One partition keeps the letters of all topics in one order, and they
		// stay until somebody has seen to them.
		p.partitions, p.config["retention.ms"] = 1, "-1"
	} else {
		wanted.Partitions = c.TopicPartitions
		maps.Copy(wanted.Config, c.TopicConfig)
	}
	wanted.Replication = c.TopicReplication
	for _, t := range c.Topics {
		if t.Name != name {
			continue
		}
		if t.Partitions != 0 {
			wanted.Partitions = t.Partitions
		}
		if t.Replication != 0 {
			wanted.Replication = t.Replication
		}
		maps.Copy(wanted.Config, t.Config)
	}
	if wanted.Partitions != 0 {
		p.partitions = wanted.Partitions
	}
	if wanted.Replication != 0 {
		p.replication = wanted.Replication
	}
	maps.Copy(p.config, wanted.Config)
	p.wanted = wanted
	return p
}

// values gives the configuration as the client takes it.
func (p topicPlan) values() map[string]*string {
	values := make(map[string]*string, len(p.config))
	for key, value := range p.config {
		values[key] = &value
	}
	return values
}

// command makes the topic.
func (p topicPlan) command(brokers []string, topic string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d", strings.Join(brokers, ","), topic, p.partitions)
	if p.replication > 0 {
		fmt.Fprintf(&b, " --replication-factor %d", p.replication)
	}
	for _, key := range slices.Sorted(maps.Keys(p.config)) {
		fmt.Fprintf(&b, " --config %s=%s", key, p.config[key])
	}
	return b.String()
}

// A difference is what a topic that is there has otherwise than it was asked for.
type difference struct {
	what    string // "partitions is 1, not 3"
	command string // that changes it
}

// differences compares a topic with its plan.
func (p topicPlan) differences(brokers []string, topic kadm.TopicDetail, config map[string]string) []difference {
	name := p.wanted.Name
	server := " --bootstrap-server " + strings.Join(brokers, ",")
	var all []difference
	if n := len(topic.Partitions); p.wanted.Partitions > 0 && n != int(p.wanted.Partitions) {
		d := difference{what: fmt.Sprintf("partitions is %d, not %d", n, p.wanted.Partitions)}
		if n < int(p.wanted.Partitions) {
			d.command = fmt.Sprintf("kafka-topics.sh%s --alter --topic %s --partitions %d # keys change their partition: their order is lost at that point", server, name, p.wanted.Partitions)
		} else {
			d.command = fmt.Sprintf("kafka-topics.sh%s --delete --topic %s # Kafka can't take partitions away; this deletes its events", server, name)
		}
		all = append(all, d)
	}
	if n := topic.Partitions.NumReplicas(); p.wanted.Replication > 0 && n != int(p.wanted.Replication) {
		all = append(all, difference{
			what:    fmt.Sprintf("replication is %d, not %d", n, p.wanted.Replication),
			command: fmt.Sprintf("kafka-reassign-partitions.sh%s --execute --reassignment-json-file … # with the replicas of each partition of %s", server, name),
		})
	}
	for _, key := range slices.Sorted(maps.Keys(p.wanted.Config)) {
		want, is := p.wanted.Config[key], config[key]
		if same(want, is) {
			continue
		}
		all = append(all, difference{
			what:    fmt.Sprintf("%s is %s, not %s", key, is, want),
			command: fmt.Sprintf("kafka-configs.sh%s --alter --topic %s --add-config '%s=[%s]'", server, name, key, want),
		})
	}
	return all
}

// same compares two values of a setting. Of a list the order means nothing.
func same(a, b string) bool {
	if a == b {
		return true
	}
	list := func(s string) []string {
		items := strings.Split(s, ",")
		for i := range items {
			items[i] = strings.TrimSpace(items[i])
		}
		slices.Sort(items)
		return items
	}
	return slices.Equal(list(a), list(b))
}
