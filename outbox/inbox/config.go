package inbox

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Policy says what becomes of an event that no handler can take.
type Policy uint8

// The policies. The zero Policy is the default of the field that holds it.
const (
	// Skip passes over the event, counts it and tells the hooks.
	Skip Policy = iota + 1

	// DeadLetter keeps the event in table inbox_dead, and later events of its
	// key behind it. Without a [Config.Pool] there is no such table: the event
	// then holds its key up, as one whose handler always fails does.
	DeadLetter

	// Fail ends [Inbox.Run] with an error.
	Fail
)

func (p Policy) String() string {
	switch p {
	case Skip:
		return "skip"
	case DeadLetter:
		return "dead-letter"
	case Fail:
		return "fail"
	default:
		return fmt.Sprintf("Policy(%d)", uint8(p))
	}
}

// Config says what an [Inbox] consumes and how it handles it. Zero values
// mean the default; a value that makes no sense is refused, never adjusted.
type Config struct {
	// Brokers are Kafka's seed brokers, host:port each. Required.
	Brokers []string

	// Group is the consumer group. Members of one group share the partitions,
	// and an event is handled once a group. Required.
	Group string

	// Topics are consumed. Defaults to the topics of the types that are
	// handled.
	Topics []string

	// KafkaOptions are given to the Kafka client, for TLS and SASL say. What
	// the inbox itself depends on is set after them.
	KafkaOptions []kgo.Opt

	// SessionTimeout is after how long without a sign of life Kafka gives this
	// member's partitions to others, as after a crash. Shorter takes over
	// sooner; too short takes partitions from a member that only paused.
	// Defaults to 10s.
	SessionTimeout time.Duration

	// Instance names this member for good (static membership): a restart
	// within SessionTimeout keeps its partitions and moves nobody else's. It
	// must be another one in every process of the group. Defaults to none.
	Instance string

	// Pool is where the tables inbox and inbox_dead are, found by the search
	// path, and where the handlers' transactions run. Each handler at work
	// takes a connection, so it should have Concurrency of them and four for
	// redrives, and one more for each that a handler takes from it besides.
	// Nil: see [HandleFunc].
	Pool *pgxpool.Pool

	// Isolation is that of the handlers' transactions. Under a stricter one
	// than the default two deliveries of one event at once end in a
	// serialization failure of one of them, which is retried. Defaults to
	// [pgx.ReadCommitted].
	Isolation pgx.TxIsoLevel

	// Concurrency is how many handlers work at once, all of different ordering
	// keys. Defaults to 8.
	Concurrency int

	// MaxInFlight is how many records of one partition are in memory between
	// Kafka and the end of their handling; then the partition is not fetched
	// until half of them are done. It is also how far other keys get past one
	// that is in back-off. What the Kafka client has fetched beforehand, 50 MB
	// a broker by default, comes on top. Defaults to 1000.
	MaxInFlight int

	// MaxAttempts is how often an event's handler is tried before the event is
	// a dead letter. 1 means no retries. Attempts are counted in memory, and
	// anew after a restart or a rebalance. Defaults to 10.
	MaxAttempts int

	// Backoff is the wait after the first attempt that failed, and doubles
	// with each further one up to MaxBackoff. Each wait is shortened at random
	// by up to a half, lest what failed together come again together. With the
	// defaults an event is a dead letter after 25 to 52 s. Defaults to 100ms.
	Backoff time.Duration

	// MaxBackoff is the longest wait between two attempts, and between two
	// looks at a PostgreSQL that is away. Defaults to 30s.
	MaxBackoff time.Duration

	// Timeout is how long one attempt may take before the handler's context
	// ends. Without one a handler that hangs holds up its key, and in the end
	// its partition, for ever. Defaults to 1m; negative means none.
	Timeout time.Duration

	// Grace is how long Run, once its context has ended, lets handlers that
	// are at work go on before it ends their contexts. Defaults to 30s;
	// negative means not at all.
	Grace time.Duration

	// RebalanceGrace is the same for handlers of a partition that moves to
	// another member. The whole group waits as long, so it must stay below the
	// client's rebalance timeout, 60s. Defaults to 10s; negative means not at
	// all.
	RebalanceGrace time.Duration

	// CommitEvery is how often the offsets of what is finished are committed.
	// What was finished since is delivered again after a crash, and recognised
	// where there is a Pool. Defaults to 1s.
	CommitEvery time.Duration

	// Window is how long after it was handled an event is recognised when it
	// comes again: see [Window]. Run keeps the partitions of table inbox for
	// it, which needs the role that owns the table; negative leaves that to a
	// [Window] that runs elsewhere. Defaults to 7 days.
	Window time.Duration

	// Unknown is for events whose type has no handler. Defaults to [Skip].
	Unknown Policy

	// Undecodable is for records that are no CloudEvents of binary mode, and
	// for payloads that are not what their type says. Defaults to
	// [DeadLetter].
	Undecodable Policy

	// Hooks are told what happens to events. Defaults to none.
	Hooks []Hook

	// Log takes what an operator must know. Defaults to discarding it.
	Log *slog.Logger
}

// withDefaults gives c with its zero fields filled in.
func (c Config) withDefaults() Config {
	fill(&c.SessionTimeout, 10*time.Second)
	fill(&c.Isolation, pgx.ReadCommitted)
	fill(&c.Concurrency, 8)
	fill(&c.MaxInFlight, 1000)
	fill(&c.MaxAttempts, 10)
	fill(&c.Backoff, 100*time.Millisecond)
	fill(&c.MaxBackoff, 30*time.Second)
	fill(&c.Timeout, time.Minute)
	fill(&c.Grace, 30*time.Second)
	fill(&c.RebalanceGrace, 10*time.Second)
	fill(&c.CommitEvery, time.Second)
	fill(&c.Window, DefaultWindow)
	fill(&c.Unknown, Skip)
	fill(&c.Undecodable, DeadLetter)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// window is what Run keeps table inbox by.
func (c *Config) window() WindowConfig {
	return WindowConfig{Pool: c.Pool, Brokers: c.Brokers, KafkaOptions: c.KafkaOptions, Window: c.Window, Log: c.Log}.withDefaults()
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check tells all that is wrong with c, whose defaults are filled in.
func (c *Config) check() error {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(c.Brokers) == 0 {
		refuse("Brokers: name at least one, host:port")
	}
	if c.Group == "" {
		refuse("Group: name the consumer group")
	}
	if text(c.Group) != c.Group {
		refuse("Group %.40q: use at most %d bytes of UTF-8 without NUL", c.Group, maxText)
	}
	for _, n := range [...]struct {
		field string
		value int
	}{
		{"Concurrency", c.Concurrency}, {"MaxInFlight", c.MaxInFlight}, {"MaxAttempts", c.MaxAttempts},
	} {
		if n.value < 1 {
			refuse("%s %d: use 1 or more, or 0 for the default", n.field, n.value)
		}
	}
	for _, d := range [...]struct {
		field string
		value time.Duration
	}{
		{"SessionTimeout", c.SessionTimeout}, {"Backoff", c.Backoff}, {"MaxBackoff", c.MaxBackoff}, {"CommitEvery", c.CommitEvery},
	} {
		if d.value < time.Millisecond {
			refuse("%s %v: use 1ms or more, or 0 for the default", d.field, d.value)
		}
	}
	if c.Backoff > c.MaxBackoff {
		refuse("MaxBackoff %v: use Backoff, %v, or more", c.MaxBackoff, c.Backoff)
	}
	if c.Window > 0 && c.Window < time.Second {
		refuse("Window %v: use 1s or more, 0 for the default, or negative for none", c.Window)
	}
	if c.Unknown > Fail {
		refuse("Unknown %v: use Skip, DeadLetter or Fail", c.Unknown)
	}
	if c.Undecodable > Fail {
		refuse("Undecodable %v: use Skip, DeadLetter or Fail", c.Undecodable)
	}
	for i, h := range c.Hooks {
		if !isHook(h) {
			refuse("Hooks[%d]: %T has none of the hooks' methods", i, h)
		}
	}
	return errors.Join(problems...)
}
