package main

import (
	"errors"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// outboxFlags say which outbox a command is about, and how it is published:
// the same for every command, so that one file or environment serves all.
type outboxFlags struct {
	daemon.PostgresFlags `embed:"" envprefix:"RELAY_"`
	kafkaflags.Flags     `embed:"" envprefix:"RELAY_"`
	poisonFlags          `embed:""`

	Source           string    `help:"Name of this outbox in every record. Default: the database's name." env:"RELAY_SOURCE"`
	Slot             string    `help:"Replication slot, made at the first start. Default: outbox_<database>." env:"RELAY_SLOT"`
	Failover         bool      `help:"Make the slot one that standbys keep in step, so that it outlives a failover. Needs PostgreSQL 17." env:"RELAY_FAILOVER"`
	Publication      string    `help:"Publication, made at the first start." default:"outbox" env:"RELAY_PUBLICATION"`
	Table            string    `help:"Outbox table, with its schema where the search path does not find it." default:"outbox" env:"RELAY_TABLE"`
	Messages         string    `help:"Read logical decoding messages, in which the outbox writer's mode WAL puts events, or ignore them all: events in them are then never published." enum:"read,ignore" default:"read" env:"RELAY_MESSAGES"`
	MessagePrefix    string    `help:"Prefix of the messages that hold events. Change it only when all events under the old one are published." default:"walpost.outbox" env:"RELAY_MESSAGE_PREFIX"`
	SkipMessage      []lsn.Pos `help:"Pass over the message at this LSN, as an error of the relay names it; its events are never published." placeholder:"LSN" env:"RELAY_SKIP_MESSAGE"`
	PositionsTopic   string    `help:"Topic that keeps the position." default:"_relay.positions" env:"RELAY_POSITIONS_TOPIC"`
	TopicPartitions  int32     `help:"Partitions of topics that are missing and therefore made. Default: 3." env:"RELAY_TOPIC_PARTITIONS"`
	TopicReplication int16     `help:"Replication of topics that are made; -1 is the broker's default." default:"-1" env:"RELAY_TOPIC_REPLICATION"`
	Delivery         string    `help:"at-least-once, or exactly-once: in Kafka transactions, for those who read committed records." enum:"at-least-once,exactly-once" default:"at-least-once" env:"RELAY_DELIVERY"`
}

// relay gives the configuration with what these flags say, and every problem
// of them as wrong use.
func (f *outboxFlags) relay() (relay.Config, error) {
	dsn, errPostgres := f.DSN()
	options, errKafka := f.Options()
	if err := errors.Join(errPostgres, errKafka); err != nil {
		return relay.Config{}, &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	config := relay.Config{
		Postgres: dsn, Brokers: f.Brokers, Kafka: options,
		Source: f.Source, Slot: f.Slot, Failover: f.Failover, Publication: f.Publication, Table: f.Table,
		Messages: relay.Messages(f.Messages), MessagePrefix: f.MessagePrefix, SkipMessages: f.SkipMessage,
		PositionsTopic: f.PositionsTopic, TopicPartitions: f.TopicPartitions, TopicReplication: f.TopicReplication,
		Delivery: relay.Delivery(f.Delivery),
	}
	f.set(&config)
	return config, nil
}

// explain adds what to do to the error of a connection.
func (f *outboxFlags) explain(err error) error {
	return f.PostgresFlags.Explain(f.Flags.Explain(err))
}
