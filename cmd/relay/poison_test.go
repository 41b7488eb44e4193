package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/relay"
)

// TestTopicsAreSetByFlagVariableAndFile reads the same from all three.
func TestTopicsAreSetByFlagVariableAndFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.yaml")
	text := `
run:
  topic-config: {retention.ms: "1000", cleanup.policy: "compact,delete"}
  topic:
    - audit.logged:partitions=1,cleanup.policy=compact,delete
    - user.created:max.message.bytes=4194304
  poison: dead-letter
  dead-letter-topic: dead
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const config, topics = "retention.ms=1000;cleanup.policy=compact,delete", "audit.logged:partitions=1,cleanup.policy=compact,delete;user.created:max.message.bytes=4194304"
	tests := map[string]struct {
		args []string
		env  map[string]string
	}{
		"flags":      {args: []string{"--topic-config", config, "--topic", topics, "--poison", "dead-letter", "--dead-letter-topic", "dead"}},
		"flag twice": {args: []string{"--topic-config", config, "--topic", "audit.logged:partitions=1,cleanup.policy=compact,delete", "--topic", "user.created:max.message.bytes=4194304", "--poison", "dead-letter", "--dead-letter-topic", "dead"}},
		"variables":  {env: map[string]string{"RELAY_TOPIC_CONFIG": config, "RELAY_TOPIC": topics, "RELAY_POISON": "dead-letter", "RELAY_DEAD_LETTER_TOPIC": "dead"}},
		"file":       {args: []string{"--config", file}},
	}
	want := relay.Config{
		TopicConfig: map[string]string{"retention.ms": "1000", "cleanup.policy": "compact,delete"},
		Topics: []relay.Topic{
			{Name: "audit.logged", Partitions: 1, Config: map[string]string{"cleanup.policy": "compact,delete"}},
			{Name: "user.created", Config: map[string]string{"max.message.bytes": "4194304"}},
		},
		Poison: relay.DeadLetter, DeadLetterTopic: "dead",
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for key, value := range tt.env {
				t.Setenv(key, value)
			}
			var c commands
			parser, err := kong.New(&c, kong.Name("relay"), kong.Configuration(kongyaml.Loader))
			if err != nil {
				t.Fatal(err)
			}
			args := append([]string{"run", "--postgres", "postgres://db.example/userdb", "--brokers", "kafka.example:9092"}, tt.args...)
			if _, err := parser.Parse(args); err != nil {
				t.Fatal(err)
			}
			got, err := c.Run.relay()
			if err != nil {
				t.Fatal(err)
			}
			got = relay.Config{TopicConfig: got.TopicConfig, Topics: got.Topics, Poison: got.Poison, DeadLetterTopic: got.DeadLetterTopic}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
