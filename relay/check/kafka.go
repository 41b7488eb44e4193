package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-048de892/walpost/relay"
)

// brokers looks at the cluster, at the positions topic and at the topics.
func (l *look) brokers(ctx context.Context) error {
	admin := kadm.NewClient(l.kafka.Client)
	brokers, err := admin.ListBrokers(ctx)
	if err != nil {
		l.add("kafka", "brokers", Error, err.Error(), "compare --brokers and the --kafka-… flags with the cluster's listeners")
		return nil // it is a finding
	}
	l.add("kafka", "brokers", OK, fmt.Sprintf("%d reachable", len(brokers)), "")
	if versions, err := admin.ApiVersions(ctx); err == nil {
		for _, v := range versions.Sorted() {
			l.add("kafka", "version", OK, v.VersionGuess(), "")
			break
		}
	}
	names := append([]string{l.cfg.Relay.PositionsTopic}, l.topics...)
	if l.cfg.Relay.Poison == relay.DeadLetter {
		names = append(names, l.cfg.Relay.DeadLetterTopic)
	}
	topics, err := l.describe(ctx, names)
	if err != nil {
		return err
	}
	for i, name := range names {
		if err := l.topic(ctx, admin, topics[name], i == 0); err != nil {
			return err
		}
	}
	if topics[names[0]].missing {
		l.positions = true
		return nil
	}
	stored, found, err := l.kafka.Positions.Load(ctx)
	if err != nil {
		l.add("kafka", "position", Error, err.Error(), "kafka-acls.sh --add --operation Read --operation Describe --topic "+names[0]+" --allow-principal User:…")
		return nil // it is a finding
	}
	if l.positions = true; found {
		l.stored = &stored
	}
	return nil
}

// A topic is what Kafka tells of one.
type topic struct {
	name        string
	missing     bool
	err         error
	operations  []kadm.ACLOperation // that this client may do
	partitions  int
	replication int
	config      map[string]string
}

func (l *look) describe(ctx context.Context, names []string) (map[string]*topic, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation, request.IncludeTopicAuthorizedOperations = false, true
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		request.Topics = append(request.Topics, t)
	}
	response, err := request.RequestWith(ctx, l.kafka.Client)
	if err != nil {
		return nil, fmt.Errorf("look at topics: %w", err)
	}
	topics := make(map[string]*topic)
	for _, r := range response.Topics {
		t := &topic{name: *r.Topic, err: kerr.ErrorForCode(r.ErrorCode), partitions: len(r.Partitions), operations: kadm.DecodeACLOperations(r.AuthorizedOperations)}
		if len(r.Partitions) > 0 {
			t.replication = len(r.Partitions[0].Replicas)
		}
		t.missing = errors.Is(t.err, kerr.UnknownTopicOrPartition)
		topics[t.name] = t
	}
	existing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return topics[n] == nil || topics[n].err != nil })
	if len(existing) == 0 {
		return topics, nil
	}
	configs, err := kadm.NewClient(l.kafka.Client).DescribeTopicConfigs(ctx, existing...)
	if err != nil {
		return nil, fmt.Errorf("look at the configuration of topics: %w", err)
	}
	for _, c := range configs {
		t := topics[c.Name]
		if c.Err != nil {
			continue // DescribeConfigs is no right that the relay needs
		}
		t.config = make(map[string]string)
		for _, entry := range c.Configs {
			t.config[entry.Key] = entry.MaybeValue()
		}
	}
	return topics, nil
}

func (l *look) topic(ctx context.Context, admin *kadm.Client, t *topic, positions bool) error {
	switch {
	case t == nil:
		return nil
	case t.missing:
		return l.creatable(ctx, admin, t.name, positions)
	case t.err != nil:
		l.add("kafka", t.name, Error, t.err.Error(), l.allow(t.name, positions))
		return nil //nolint:nilerr // the error is a finding
	}
	var wrong []string
	level, next := OK, ""
	problem := func(bad bool, severity Level, what, todo string) {
		if !bad {
			return
		}
		wrong = append(wrong, what)
		if level != Error {
			level = severity
		}
		if next == "" || severity == Error {
			next = todo
		}
	}
	alter := func(key, value string) string {
		return fmt.Sprintf("kafka-configs.sh --bootstrap-server … --alter --topic %s --add-config %s=%s", t.name, key, value)
	}
	problem(!slices.Contains(t.operations, kadm.OpWrite) || positions && !slices.Contains(t.operations, kadm.OpRead), Error, "the client may not use it", l.allow(t.name, positions))
	if t.config == nil {
		problem(true, Warning, "its configuration may not be read", "kafka-acls.sh --add --operation DescribeConfigs --topic "+t.name+" --allow-principal User:…")
	} else {
		isr, _ := strconv.Atoi(t.config["min.insync.replicas"])
		largest, _ := strconv.ParseInt(t.config["max.message.bytes"], 10, 64)
		problem(positions && !strings.Contains(t.config["cleanup.policy"], "compact"), Error, "it is not compacted: Kafka will delete the position", alter("cleanup.policy", "compact"))
		problem(isr > t.replication, Error, fmt.Sprintf("min.insync.replicas %d is beyond its %d replicas: nothing can be written", isr, t.replication), alter("min.insync.replicas", strconv.Itoa(max(t.replication-1, 1))))
		problem(t.replication > 1 && isr == t.replication, Warning, fmt.Sprintf("min.insync.replicas %d is all replicas: one broker down stops it", isr), alter("min.insync.replicas", strconv.Itoa(t.replication-1)))
		problem(t.replication > 2 && isr == 1, Warning, "min.insync.replicas 1: what is acknowledged may be on one broker alone", alter("min.insync.replicas", "2"))
		problem(!positions && largest < l.needed(), Warning, fmt.Sprintf("max.message.bytes %d is less than an event of %d bytes may need", largest, l.cfg.MaxBytes), alter("max.message.bytes", strconv.FormatInt(l.needed(), 10)))
	}
	problem(t.replication == 1, Warning, "one replica: lost with its broker", "kafka-reassign-partitions.sh, to a replication of 3")
	problem(positions && t.partitions != 1, Error, "it must have one partition", "use a topic of its own: --positions-topic")
	what := fmt.Sprintf("%d partitions, %d replicas", t.partitions, t.replication)
	if len(wrong) > 0 {
		what += "; " + strings.Join(wrong, "; ")
	}
	l.add("kafka", t.name, level, what, next)
	return nil
}

// creatable asks Kafka to say whether it would make the topic.
func (l *look) creatable(ctx context.Context, admin *kadm.Client, name string, positions bool) error {
	partitions := l.cfg.Relay.TopicPartitions
	if positions {
		partitions = 1
	}
	responses, err := admin.ValidateCreateTopics(ctx, max(partitions, 1), l.cfg.Relay.TopicReplication, nil, name)
	if err != nil {
		return fmt.Errorf("ask whether topic %s can be made: %w", name, err)
	}
	if err := responses[name].Err; err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		l.add("kafka", name, Error, fmt.Sprintf("it is missing, and can't be made: %v", err), fmt.Sprintf("kafka-topics.sh --bootstrap-server … --create --topic %s --partitions %d", name, partitions))
		return nil
	}
	l.add("kafka", name, OK, "it is missing; the relay makes it", "")
	return nil
}

func (l *look) allow(topic string, positions bool) string {
	read := ""
	if positions {
		read = " --operation Read"
	}
	return "kafka-acls.sh --bootstrap-server … --add --operation Describe --operation Write" + read + " --topic " + topic + " --allow-principal User:…"
}
