// Package relay publishes the events of a PostgreSQL outbox to Kafka, from the
// write-ahead log: none lost, those of one key in commit order, each with its
// number in a sequence without holes.
//
// Data flows one way, and every stage is bounded:
//
//	stream → decode → route → produce ─► Kafka
//	                    │                  │ acknowledged
//	                    └──► tracker ◄─────┘
//	                            │ all done up to
//	                            ▼
//	                        confirmer ──► position in Kafka ──► slot in PostgreSQL
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// Config says what a [Relay] does. Postgres and Brokers must be set; for all
// else the zero value means the default.
type Config struct {
	// Postgres is the connection string of the database with the outbox table.
	// Its role needs REPLICATION, and for the first start the ownership of the
	// table. A password may come from PGPASSWORD or a passfile.
	Postgres string

	// Brokers are seeds of the Kafka cluster, host:port.
	Brokers []string

	// Source names this outbox in every record, a URI reference. Sequence and
	// position belong to it: two relays with one source work in turn, never
	// side by side. Changing it begins a new sequence. Defaults to the
	// database's name.
	Source string

	// Slot is the replication slot, made at the first start. Slots share one
	// namespace in a PostgreSQL cluster. Defaults to outbox_<database>.
	Slot string

	// Failover makes the slot one that standbys keep in step, so that it
	// outlives a failover. Needs PostgreSQL 17, and servers set up for it: see
	// package check. It says nothing to a slot that is there already.
	Failover bool

	// Publication is made at the first start. Defaults to outbox.
	Publication string

	// Table is the outbox table, "outbox" or "schema.outbox". Defaults to
	// outbox, found by the search path.
	Table string

	// Messages says whether logical decoding messages are read, in which
	// outbox.Writer's mode WAL puts events. The server then sends those of
	// others too, which are passed over. Defaults to [ReadMessages].
	Messages Messages

	// MessagePrefix is the prefix of messages that hold events. It is compared
	// as a whole; messages of another are not the relay's. Change it only when
	// all events under the old one are published: they are no longer read.
	// Defaults to outbox.DefaultPrefix.
	MessagePrefix string

	// SkipMessages are messages, by the LSN that a [MessageError] names, that
	// are passed over although they have the prefix: their events are never
	// published.
	SkipMessages []lsn.Pos

	// PositionsTopic keeps the position of each source. Defaults to
	// _relay.positions.
	PositionsTopic string

	// TopicPartitions, TopicReplication and TopicConfig, by Kafka's names, are
	// for topics that are missing and therefore made; what Topics says of a
	// topic goes before them. A topic that is there is never changed: where it
	// differs from what is set here, the log says so. Default to 3 partitions,
	// the broker's default replication (-1), and retention.ms=604800000, 7 days.
	TopicPartitions  int32
	TopicReplication int16
	TopicConfig      map[string]string
	Topics           []Topic

	// Poison says what to do with an event that can never be published as it
	// is. Defaults to [Halt].
	Poison Poison

	// DeadLetterTopic gets those events with [DeadLetter]. It is made with one
	// partition and unlimited retention; TopicPartitions and TopicConfig are
	// not for it, but Topics is. Defaults to [DefaultDeadLetterTopic].
	DeadLetterTopic string

	// Delivery says how often a record may be in Kafka. It may be changed from
	// one start to the next. Defaults to [AtLeastOnce].
	Delivery Delivery

	// TransactionRecords and TransactionEvery end a Kafka transaction, with
	// [ExactlyOnce] alone: when it holds so many records, or this long after
	// the first of them was read, whichever is first. A transaction costs
	// Kafka some ten milliseconds whatever it holds, and its records are seen
	// at its end: less costs throughput, more costs latency. A negative time
	// ends it as soon as there is nothing more to take. Default to 5000 records
	// and 20 ms.
	TransactionRecords int
	TransactionEvery   time.Duration

	// ExistingRows says what to do when the slot is made and the table already
	// holds rows, which no slot can deliver. Defaults to [RefuseRows].
	ExistingRows ExistingRows

	// LostSlot says what to do when events may be missing between the stored
	// position and the slot. Defaults to [StopOnLoss].
	LostSlot LostSlot

	// MaxBufferBytes bounds the records that are read and not yet acknowledged
	// by Kafka. Where it is full, reading waits, and with it the walsender.
	// Less makes draining a backlog slower. Defaults to 64 MiB.
	MaxBufferBytes int64

	// Linger is how long a record waits for company in its batch. More costs
	// latency and saves CPU here and in the broker. Negative means none.
	// Defaults to 1 ms.
	Linger time.Duration

	// ConfirmEvery is the least time between two positions written to Kafka
	// and confirmed to PostgreSQL. After a crash the records acknowledged
	// since the last one come again. Defaults to 200 ms.
	ConfirmEvery time.Duration

	// SenderTimeout is how long PostgreSQL keeps the slot busy for a relay
	// that vanished without closing its connection. Defaults to 15 s.
	SenderTimeout time.Duration

	// CanaryEvery is how often the relay writes a canary while it streams: a
	// small message into the write-ahead log, which comes back in the stream
	// and must be acknowledged as events are. Nobody is sent it. More often
	// notices a relay that has stopped working sooner, and keeps an idle
	// server's log moving. Negative means never: [Relay.Ready] then knows only
	// of what fails. Defaults to 10 s.
	CanaryEvery time.Duration

	// CanaryWithin is when a canary is late: until it is through, the relay is
	// not ready. A relay that catches up with a backlog is not ready either.
	// Defaults to 30 s.
	CanaryWithin time.Duration

	// StopGrace is how long Run waits at its end for records on their way.
	// Those that are late come again at the next start. Defaults to 10 s.
	StopGrace time.Duration

	// Kafka are more options for the Kafka client: TLS, SASL, hooks. Those
	// that delivery rests on (acks, idempotence, retries) are the relay's.
	Kafka []kgo.Opt

	Log     *slog.Logger          // defaults to none
	Metrics prometheus.Registerer // defaults to none

	// Tracer gives each published record a span, from the commit in PostgreSQL
	// until Kafka has it for its readers: a child of, and linked to, the span
	// that the writer named in the header traceparent, which consumers see
	// unchanged. The provider's sampler says for which records; what it costs
	// is its own. Defaults to none.
	Tracer trace.TracerProvider
}

// ExistingRows says what a relay does with rows older than its slot.
type ExistingRows string

// The answers to rows that are older than the slot.
const (
	RefuseRows ExistingRows = "refuse" // do not start, and drop the new slot again
	SkipRows   ExistingRows = "skip"   // start behind them: they are never published
)

// LostSlot says what a relay does when its slot is gone, was invalidated, is
// another cluster's or was moved ahead of the stored position.
type LostSlot string

// The answers to a lost slot.
const (
	StopOnLoss     LostSlot = "stop"     // do not start
	ContinueOnLoss LostSlot = "continue" // start with a new slot: what committed in between is not published
)

// Messages says what a relay does with logical decoding messages.
type Messages string

// The answers to logical decoding messages.
const (
	ReadMessages   Messages = "read"   // publish the events of those with the relay's prefix
	IgnoreMessages Messages = "ignore" // do not ask for any: events written to them are never published
)

// withDefaults fills what is unset and reports every problem at once, by the
// names the operator knows.
func (c Config) withDefaults() (Config, *pgx.ConnConfig, error) {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	pg, err := pgx.ParseConfig(c.Postgres)
	switch {
	case c.Postgres == "":
		problem("postgres: must be set, like postgres://relay@db.example/userdb")
	case err != nil:
		// Without pgx's own text, which can hold the password of a broken one.
		problem("postgres: no connection string: use a URL like postgres://relay@db.example/userdb, or words like host=db.example user=relay, with values that hold spaces in single quotes")
	case pg.Database == "":
		problem("postgres: names no database")
	}
	if len(c.Brokers) == 0 {
		problem("brokers: must be set, like kafka1.example:9092")
	}
	database := ""
	if pg != nil {
		database = pg.Database
	}
	defaulted(&c.Source, url.PathEscape(database))
	defaulted(&c.Slot, "outbox_"+slotName(database))
	defaulted(&c.Publication, "outbox")
	defaulted(&c.Table, "outbox")
	defaulted(&c.Messages, ReadMessages)
	defaulted(&c.MessagePrefix, outbox.DefaultPrefix)
	defaulted(&c.PositionsTopic, position.DefaultTopic)
	defaulted(&c.TopicReplication, -1)
	defaulted(&c.Poison, Halt)
	defaulted(&c.DeadLetterTopic, DefaultDeadLetterTopic)
	defaulted(&c.Delivery, AtLeastOnce)
	defaulted(&c.TransactionRecords, 5000)
	defaulted(&c.TransactionEvery, 20*time.Millisecond)
	defaulted(&c.ExistingRows, RefuseRows)
	defaulted(&c.LostSlot, StopOnLoss)
	defaulted(&c.MaxBufferBytes, 64<<20)
	defaulted(&c.Linger, time.Millisecond)
	defaulted(&c.ConfirmEvery, 200*time.Millisecond)
	defaulted(&c.SenderTimeout, 15*time.Second)
	defaulted(&c.StopGrace, 10*time.Second)
	defaulted(&c.CanaryEvery, defaultCanaryEvery)
	defaulted(&c.CanaryWithin, 30*time.Second)
	defaulted(&c.Log, slog.New(slog.DiscardHandler))

	if _, err := url.Parse(c.Source); err != nil {
		problem("source: %q is no URI reference: %w", c.Source, err)
	}
	if c.Slot != slotName(c.Slot) {
		problem("slot: %q: PostgreSQL allows lower-case letters, digits and underscores, 63 at most", c.Slot)
	}
	if c.Messages != ReadMessages && c.Messages != IgnoreMessages {
		problem("messages: %q: use %s or %s", c.Messages, ReadMessages, IgnoreMessages)
	}
	if strings.ContainsRune(c.MessagePrefix, 0) {
		problem("message-prefix: %q: PostgreSQL's text has no NUL", c.MessagePrefix)
	}
	if c.TopicPartitions < 0 {
		problem("topic-partitions: must be at least 1, got %d", c.TopicPartitions)
	}
	if err := checkTopicConfig(c.TopicConfig); err != nil {
		problem("topic-config: %w", err)
	}
	for i, t := range c.Topics {
		if err := t.check(); err != nil {
			problem("topic %s: %w", t.Name, err)
		}
		if slices.ContainsFunc(c.Topics[:i], func(other Topic) bool { return other.Name == t.Name }) {
			problem("topic %s: is set twice", t.Name)
		}
	}
	if c.Poison != Halt && c.Poison != DeadLetter {
		problem("poison: %q: use %s or %s", c.Poison, Halt, DeadLetter)
	}
	if err := checkTopicName(c.DeadLetterTopic); err != nil {
		problem("dead-letter-topic: %w", err)
	}
	if c.DeadLetterTopic == c.PositionsTopic {
		problem("dead-letter-topic: must not be the positions topic, %s", c.PositionsTopic)
	}
	if c.TopicReplication < -1 {
		problem("topic-replication: must be at least 1, or -1 for the broker's default, got %d", c.TopicReplication)
	}
	if c.Delivery != AtLeastOnce && c.Delivery != ExactlyOnce {
		problem("delivery: %q: use %s or %s", c.Delivery, AtLeastOnce, ExactlyOnce)
	}
	if c.TransactionRecords < 1 {
		problem("transaction-records: must be at least 1, got %d", c.TransactionRecords)
	}
	if c.TransactionEvery > transactionTimeout/10 {
		problem("transaction-every: must be at most %v, got %v", transactionTimeout/10, c.TransactionEvery)
	}
	if c.ExistingRows != RefuseRows && c.ExistingRows != SkipRows {
		problem("existing-rows: %q: use %s or %s", c.ExistingRows, RefuseRows, SkipRows)
	}
	if c.LostSlot != StopOnLoss && c.LostSlot != ContinueOnLoss {
		problem("lost-slot: %q: use %s or %s", c.LostSlot, StopOnLoss, ContinueOnLoss)
	}
	if c.MaxBufferBytes < 1<<20 {
		problem("max-buffer-bytes: must be at least 1048576, got %d", c.MaxBufferBytes)
	}
	if c.ConfirmEvery < 0 || c.ConfirmEvery > statusEvery {
		problem("confirm-every: must be between 0 and %v, got %v", statusEvery, c.ConfirmEvery)
	}
	if c.SenderTimeout < time.Second {
		problem("sender-timeout: must be at least 1s, got %v", c.SenderTimeout)
	}
	if c.CanaryWithin <= c.ConfirmEvery {
		problem("canary-within: must be longer than confirm-every, %v, got %v", c.ConfirmEvery, c.CanaryWithin)
	}
	if c.MessagePrefix == CanaryPrefix {
		problem("message-prefix: %q is the canaries'", c.MessagePrefix)
	}
	return c, pg, errors.Join(errs...)
}

func (c Config) names() slot.Names {
	return slot.Names{Table: c.Table, Publication: c.Publication, Slot: c.Slot}
}

func defaulted[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// slotName gives s as PostgreSQL allows a slot to be named.
func slotName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '_':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, s)
	return s[:min(len(s), 63)]
}
