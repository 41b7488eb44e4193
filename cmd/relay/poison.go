package main

import "github.com/seed-048de892/walpost/relay"

// poisonFlags say how topics are made, and what becomes of events that can't
// be published.
type poisonFlags struct {
	TopicConfig     map[string]string `help:"Settings of topics that are made, by Kafka's names, separated by semicolons. Default: retention.ms=604800000." placeholder:"SETTING=VALUE" env:"RELAY_TOPIC_CONFIG"`
	Topic           []relay.Topic     `help:"How one topic is made otherwise, like audit.logged:partitions=1,cleanup.policy=compact; several by semicolons, or the flag again." sep:";" placeholder:"NAME:SETTING=VALUE,…" env:"RELAY_TOPIC"`
	Poison          string            `help:"With an event that can't be published: halt in front of it, or publish it to the dead-letter topic with the reason and go on." enum:"halt,dead-letter" default:"halt" env:"RELAY_POISON"`
	DeadLetterTopic string            `help:"Topic of dead letters, made with one partition and unlimited retention." default:"_relay.dead-letters" env:"RELAY_DEAD_LETTER_TOPIC"`
}

func (f *poisonFlags) set(c *relay.Config) {
	c.TopicConfig, c.Topics = f.TopicConfig, f.Topic
	c.Poison, c.DeadLetterTopic = relay.Poison(f.Poison), f.DeadLetterTopic
}
