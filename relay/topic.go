package relay

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Topic says how one topic is made, where it is missing, otherwise than the
// others. A topic that is there is never changed.
type Topic struct {
	Name        string
	Partitions  int32             // 0: Config.TopicPartitions
	Replication int16             // 0: Config.TopicReplication
	Config      map[string]string // by Kafka's names; what is not in it is as Config.TopicConfig says
}

// ParseTopic reads what [Topic.String] writes, audit.logged:partitions=1,cleanup.policy=compact.
// A value may have commas: what has no = belongs to the value before it, as in
// cleanup.policy=compact,delete.
func ParseTopic(s string) (Topic, error) {
	name, settings, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return Topic{}, fmt.Errorf("topic %q: want name:setting=value,…, like audit.logged:partitions=1,cleanup.policy=compact", s)
	}
	t := Topic{Name: name}
	var pairs []string
	for piece := range strings.SplitSeq(settings, ",") {
		if strings.Contains(piece, "=") || len(pairs) == 0 {
			pairs = append(pairs, piece)
			continue
		}
		pairs[len(pairs)-1] += "," + piece
	}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return Topic{}, fmt.Errorf("topic %s: %q: want setting=value", name, pair)
		}
		var err error
		switch key {
		case "partitions":
			t.Partitions, err = number[int32](value)
		case "replication":
			t.Replication, err = number[int16](value)
		default:
			if _, twice := t.Config[key]; twice {
				err = errors.New("is set twice")
			}
			if t.Config == nil {
				t.Config = make(map[string]string)
			}
			t.Config[key] = value
		}
		if err != nil {
			return Topic{}, fmt.Errorf("topic %s: %s: %w", name, key, err)
		}
	}
	return t, nil
}

// number reads a count; zero is for leaving it out.
func number[T int16 | int32](s string) (T, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || int64(T(n)) != n || n == 0 {
		return 0, fmt.Errorf("must be a number from 1, got %q", s)
	}
	return T(n), nil
}

// String gives t as [ParseTopic] reads it.
func (t Topic) String() string {
	var pairs []string
	if t.Partitions != 0 {
		pairs = append(pairs, fmt.Sprintf("partitions=%d", t.Partitions))
	}
	if t.Replication != 0 {
		pairs = append(pairs, fmt.Sprintf("replication=%d", t.Replication))
	}
	for _, key := range slices.Sorted(maps.Keys(t.Config)) {
		pairs = append(pairs, key+"="+t.Config[key])
	}
	return t.Name + ":" + strings.Join(pairs, ",")
}

// MarshalText gives t as [ParseTopic] reads it.
func (t Topic) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is [ParseTopic].
func (t *Topic) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTopic(string(b))
	return err
}

// check reports every problem of t.
func (t Topic) check() error {
	var errs []error
	if err := checkTopicName(t.Name); err != nil {
		errs = append(errs, err)
	}
	if t.Partitions < 0 {
		errs = append(errs, fmt.Errorf("partitions: must be at least 1, got %d", t.Partitions))
	}
	if t.Replication < -1 {
		errs = append(errs, fmt.Errorf("replication: must be at least 1, or -1 for the broker's default, got %d", t.Replication))
	}
	return errors.Join(append(errs, checkTopicConfig(t.Config))...)
}

// checkTopicConfig refuses what is no setting of a topic: the broker would do
// so too, but only once an event needs the topic.
func checkTopicConfig(config map[string]string) error {
	known := topicSettings()
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(config)) {
		if !slices.Contains(known, key) {
			errs = append(errs, fmt.Errorf("%q is no setting of a topic; there are partitions, replication, %s", key, strings.Join(known, ", ")))
		}
	}
	return errors.Join(errs...)
}

// topicSettings are those of Kafka 4.3, and of the versions before it the two
// that were renamed or dropped since.
func topicSettings() []string {
	return []string{
		"cleanup.policy", "compression.gzip.level", "compression.lz4.level", "compression.type", "compression.zstd.level",
		"delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms", "follower.replication.throttled.replicas",
		"index.interval.bytes", "leader.replication.throttled.replicas", "local.retention.bytes", "local.retention.ms",
		"max.compaction.lag.ms", "max.message.bytes", "message.downconversion.enable", "message.timestamp.after.max.ms",
		"message.timestamp.before.max.ms", "message.timestamp.difference.max.ms", "message.timestamp.type",
		"min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "preallocate",
		"remote.log.copy.disable", "remote.log.delete.on.disable", "remote.storage.enable",
		"retention.bytes", "retention.ms", "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms",
		"unclean.leader.election.enable",
	}
}

// maxTopicName is the length of a topic's name that Kafka allows.
const maxTopicName = 249

// checkTopicName refuses what Kafka would, without asking it.
func checkTopicName(name string) error {
	switch {
	case name == "." || name == "..":
		return fmt.Errorf("%q can't be a topic's name", name)
	case len(name) == 0 || len(name) > maxTopicName:
		return fmt.Errorf("a topic's name has 1 to %d characters, this one %d", maxTopicName, len(name))
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%q can't be a topic's name: Kafka allows letters, digits, dot, underscore and hyphen", name)
		}
	}
	return nil
}
