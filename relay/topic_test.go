package relay

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"pgregory.net/rapid"
)

func TestParseTopic(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in   string
		want Topic
		err  string // empty: none
	}{
		"all":              {in: "audit.logged:partitions=1,replication=3,cleanup.policy=compact", want: Topic{"audit.logged", 1, 3, map[string]string{"cleanup.policy": "compact"}}},
		"value with comma": {in: "a:cleanup.policy=compact,delete,partitions=2", want: Topic{"a", 2, 0, map[string]string{"cleanup.policy": "compact,delete"}}},
		"empty value":      {in: "a:leader.replication.throttled.replicas=", want: Topic{"a", 0, 0, map[string]string{"leader.replication.throttled.replicas": ""}}},
		"no settings":      {in: "a", err: "want name:setting=value"},
		"no name":          {in: ":partitions=1", err: "want name:setting=value"},
		"no value":         {in: "a:partitions", err: "want setting=value"},
		"no number":        {in: "a:partitions=many", err: `a number from 1, got "many"`},
		"zero":             {in: "a:partitions=0", err: "a number from 1"},
		"too many":         {in: "a:replication=65537", err: "a number from 1"},
		"twice":            {in: "a:retention.ms=1,retention.ms=2", err: "retention.ms: is set twice"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseTopic(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseTopic: %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTopicsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Topic{
			Name:       rapid.StringMatching(`[a-z._-]{1,20}`).Draw(t, "name"),
			Partitions: rapid.Int32Min(0).Draw(t, "partitions"), Replication: rapid.Int16Min(0).Draw(t, "replication"),
		}
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(topicSettings()), 1, 4, rapid.ID[string]).Draw(t, "keys") {
			if want.Config == nil {
				want.Config = make(map[string]string)
			}
			want.Config[key] = rapid.StringMatching(`[a-z0-9]{0,9}(,[a-z]{1,5})?`).Draw(t, key)
		}
		var got Topic
		if err := got.UnmarshalText([]byte(want.String())); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s, -want +got:\n%s", want, diff)
		}
	})
}

func TestProblemsOfTopicsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Postgres: "postgres://db.example/userdb", Brokers: []string{"kafka.example:9092"},
		TopicPartitions: -1, TopicReplication: -2, TopicConfig: map[string]string{"retention": "1"},
		Topics: []Topic{
			{Name: "a b"},
			{Name: "twice"},
			{Name: "twice"},
			{Name: "few", Partitions: -1, Replication: -3},
			{Name: "wrong", Config: map[string]string{"cleanup": "compact"}},
		},
		Poison: "ignore", DeadLetterTopic: "..",
	})
	if err == nil {
		t.Fatal("New takes everything")
	}
	for _, want := range []string{
		"topic-partitions: ", "topic-replication: ", `topic-config: "retention" is no setting of a topic; there are partitions, replication, cleanup.policy, `,
		`topic a b: "a b" can't be a topic's name`, "topic twice: is set twice", "topic few: partitions: ", "replication: must be at least 1, or -1 for the broker's default, got -3",
		`topic wrong: "cleanup" is no setting`, `poison: "ignore": use halt or dead-letter`, `dead-letter-topic: ".."`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v\nwant %q in it", err, want)
		}
	}
	if _, err := New(Config{Postgres: "postgres://db.example/userdb", Brokers: []string{"kafka.example:9092"}, DeadLetterTopic: "_relay.positions"}); err == nil || !strings.Contains(err.Error(), "must not be the positions topic") {
		t.Errorf("New: %v, want that the two topics are told apart", err)
	}
}

func TestPlans(t *testing.T) {
	t.Parallel()
	c := Config{
		DeadLetterTopic: "dead", TopicReplication: -1, TopicPartitions: 6, TopicConfig: map[string]string{"retention.ms": "1000", "segment.ms": "5"},
		Topics: []Topic{{Name: "audit.logged", Partitions: 1, Config: map[string]string{"cleanup.policy": "compact", "segment.ms": "7"}}, {Name: "dead", Replication: 2}},
	}
	plain := Config{TopicReplication: -1}
	tests := map[string]struct {
		config *Config
		topic  string
		want   topicPlan // without wanted
	}{
		"defaults":     {&plain, "a", topicPlan{partitions: 3, replication: -1, config: map[string]string{"retention.ms": "604800000"}}},
		"all topics":   {&c, "a", topicPlan{partitions: 6, replication: -1, config: map[string]string{"retention.ms": "1000", "segment.ms": "5"}}},
		"one topic":    {&c, "audit.logged", topicPlan{partitions: 1, replication: -1, config: map[string]string{"retention.ms": "1000", "segment.ms": "7", "cleanup.policy": "compact"}}},
		"dead letters": {&c, "dead", topicPlan{partitions: 1, replication: 2, config: map[string]string{"retention.ms": "-1"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := tt.config.plan(tt.topic)
			got.wanted = Topic{}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(topicPlan{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestOnlyWhatWasAskedForIsCompared finds no fault with topics that differ from
// defaults.
func TestOnlyWhatWasAskedForIsCompared(t *testing.T) {
	t.Parallel()
	is := map[string]string{"retention.ms": "5", "cleanup.policy": "delete,compact", "segment.ms": "1"}
	detail := kadm.TopicDetail{Topic: "a", Partitions: kadm.PartitionDetails{0: {Replicas: []int32{1}}}}
	plain := Config{TopicReplication: -1}
	if got := plain.plan("a").differences(nil, detail, is); len(got) > 0 {
		t.Errorf("of defaults, %v differs", got)
	}
	c := Config{TopicReplication: 2, TopicPartitions: 3, TopicConfig: map[string]string{"retention.ms": "6", "cleanup.policy": "compact,delete", "segment.ms": "1"}}
	var got []string
	for _, d := range c.plan("a").differences([]string{"b:9"}, detail, is) {
		command, _, _ := strings.Cut(d.command, " #")
		got = append(got, d.what, command)
	}
	want := []string{
		"partitions is 1, not 3", "kafka-topics.sh --bootstrap-server b:9 --alter --topic a --partitions 3",
		"replication is 1, not 2", "kafka-reassign-partitions.sh --bootstrap-server b:9 --execute --reassignment-json-file …",
		"retention.ms is 5, not 6", "kafka-configs.sh --bootstrap-server b:9 --alter --topic a --add-config 'retention.ms=[6]'",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTopicNames holds the check against what Kafka's documentation says.
func TestTopicNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[a-zA-Z0-9._-]{0,260}`), rapid.String(), rapid.SampledFrom([]string{".", "..", "..."})).Draw(t, "name")
		legal := len(name) > 0 && len(name) <= 249 && name != "." && name != ".." && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == "" &&
			!strings.ContainsFunc(name, func(r rune) bool { return r > 127 })
		for _, c := range []byte(name) {
			legal = legal && strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c) >= 0
		}
		if got := checkTopicName(name) == nil; got != legal {
			t.Fatalf("%q is legal: %t, want %t", name, got, legal)
		}
	})
}
