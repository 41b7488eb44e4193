package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
)

type commands struct {
	Config kong.ConfigFlag `help:"YAML file with flags by their names." placeholder:"FILE" env:"RELAY_CONFIG"`

	Run     runCommand            `cmd:"" help:"Publish until stopped."`
	Version daemon.VersionCommand `cmd:"" help:"Print the version."`
}

// runCommand has a flag for every field of relay.Config that an operator sets;
// the zero value means the default there.
type runCommand struct {
	Postgres           string        `help:"Connection string of the database with the outbox table. The password may come from PGPASSWORD or a passfile." required:"" env:"RELAY_POSTGRES"`
	Brokers            []string      `help:"Seeds of the Kafka cluster, host:port, separated by commas." required:"" env:"RELAY_BROKERS"`
	Source             string        `help:"Name of this outbox in every record. Default: the database's name." env:"RELAY_SOURCE"`
	Slot               string        `help:"Replication slot, made at the first start. Default: outbox_<database>." env:"RELAY_SLOT"`
	Publication        string        `help:"Publication, made at the first start." default:"outbox" env:"RELAY_PUBLICATION"`
	Table              string        `help:"Outbox table, with its schema where the search path does not find it." default:"outbox" env:"RELAY_TABLE"`
	Messages           string        `help:"Read logical decoding messages, in which the outbox writer's mode WAL puts events, or ignore them all: events in them are then never published." enum:"read,ignore" default:"read" env:"RELAY_MESSAGES"`
	MessagePrefix      string        `help:"Prefix of the messages that hold events. Change it only when all events under the old one are published." default:"walpost.outbox" env:"RELAY_MESSAGE_PREFIX"`
	SkipMessage        []lsn.Pos     `help:"Pass over the message at this LSN, as an error of the relay names it; its events are never published." placeholder:"LSN" env:"RELAY_SKIP_MESSAGE"`
	PositionsTopic     string        `help:"Topic that keeps the position." default:"_relay.positions" env:"RELAY_POSITIONS_TOPIC"`
	TopicPartitions    int32         `help:"Partitions of topics that are missing and therefore made." default:"3" env:"RELAY_TOPIC_PARTITIONS"`
	TopicReplication   int16         `help:"Replication of topics that are made; -1 is the broker's default." default:"-1" env:"RELAY_TOPIC_REPLICATION"`
	Delivery           string        `help:"at-least-once, or exactly-once: in Kafka transactions, for those who read committed records." enum:"at-least-once,exactly-once" default:"at-least-once" env:"RELAY_DELIVERY"`
	TransactionRecords int           `help:"End a Kafka transaction when it holds so many records. Exactly-once only." default:"5000" env:"RELAY_TRANSACTION_RECORDS"`
	TransactionEvery   time.Duration `help:"End a Kafka transaction this long after its first record was read. Exactly-once only." default:"20ms" env:"RELAY_TRANSACTION_EVERY"`
	ExistingRows       string        `help:"When the slot is made and the table holds rows already: refuse to start, or skip them." enum:"refuse,skip" default:"refuse" env:"RELAY_EXISTING_ROWS"`
	LostSlot           string        `help:"When events may be missing between the stored position and the slot: stop, or continue with a new slot." enum:"stop,continue" default:"stop" env:"RELAY_LOST_SLOT"`
	MaxBufferBytes     int64         `help:"Bound of the records read and not yet acknowledged." default:"67108864" env:"RELAY_MAX_BUFFER_BYTES"`
	Linger             time.Duration `help:"How long a record waits for company in its batch." default:"1ms" env:"RELAY_LINGER"`
	ConfirmEvery       time.Duration `help:"Least time between two stored positions." default:"200ms" env:"RELAY_CONFIRM_EVERY"`
	SenderTimeout      time.Duration `help:"How long PostgreSQL keeps the slot for a relay that vanished." default:"15s" env:"RELAY_SENDER_TIMEOUT"`
	StopGrace          time.Duration `help:"How long a stop waits for records on their way." default:"10s" env:"RELAY_STOP_GRACE"`
	OpsListen          string        `help:"Address of /health, /ready, /metrics and /debug/pprof." default:"127.0.0.1:9401" env:"RELAY_OPS_LISTEN"`

	retentionFlags  `embed:"" envprefix:"RELAY_"`
	daemon.LogFlags `embed:"" envprefix:"RELAY_"`
}

// Run publishes until ctx ends. A gap ends the program with the code for a
// broken promise.
func (c *runCommand) Run(ctx context.Context, out daemon.Output) error {
	log := c.Logger(out.Stderr)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r, err := relay.New(relay.Config{
		Postgres: c.Postgres, Brokers: c.Brokers,
		Source: c.Source, Slot: c.Slot, Publication: c.Publication, Table: c.Table,
		Messages: relay.Messages(c.Messages), MessagePrefix: c.MessagePrefix, SkipMessages: c.SkipMessage,
		PositionsTopic: c.PositionsTopic, TopicPartitions: c.TopicPartitions, TopicReplication: c.TopicReplication,
		Delivery: relay.Delivery(c.Delivery), TransactionRecords: c.TransactionRecords, TransactionEvery: c.TransactionEvery,
		ExistingRows: relay.ExistingRows(c.ExistingRows), LostSlot: relay.LostSlot(c.LostSlot),
		MaxBufferBytes: c.MaxBufferBytes, Linger: c.Linger, ConfirmEvery: c.ConfirmEvery,
		SenderTimeout: c.SenderTimeout, StopGrace: c.StopGrace,
		Log: log, Metrics: registry,
	})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	ops := daemon.Ops{Listen: c.OpsListen, Registry: registry, Ready: r.Ready, Log: log}
	parts := []func(context.Context) error{r.Run, ops.Run}
	keep, err := c.part(c.Postgres, c.Table, c.Slot, registry, log)
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	if keep != nil {
		parts = append(parts, keep)
	}
	err = daemon.Run(ctx, parts...)
	if gap, ok := errors.AsType[*relay.GapError](err); ok {
		return &daemon.ExitError{Code: daemon.ExitPromise, Err: gap}
	}
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}
