package archive

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Defaults of [Config].
const (
	DefaultDatabase = "eventstore"
	DefaultGroup    = "archive"
	// DefaultTopics leaves out internal topics, whose names begin with "_".
	DefaultTopics = "^[^_]"
)

// maxBatchBytes leaves room for the command around the documents below the
// 48,000,000 bytes that MongoDB takes in one message.
const maxBatchBytes = 47_000_000

// Config says what is archived where. A zero field has its default.
type Config struct {
	// Brokers are the Kafka brokers to ask first, as host:port. Required.
	Brokers []string

	// KafkaOptions are added to the client's own, for TLS and SASL for
	// example. The consumer group's options are the archive's.
	KafkaOptions []kgo.Opt

	// MongoURI is the MongoDB connection string. Required.
	MongoURI string

	// Database holds the collections. Defaults to "eventstore".
	Database string

	// Group is the consumer group. Archives of one group share the
	// partitions; a new group reads everything again, which is counted as
	// redelivery. Defaults to "archive".
	Group string

	// Instance names this archive among those of its group, for as long as it
	// is restarted on the same place. It then goes on at once after a crash
	// with the partitions it had, where a nameless one waits until its
	// predecessor's SessionTimeout is over; in turn nobody takes over before
	// that when it is stopped. Two with one name shut each other out.
	Instance string

	// SessionTimeout is after what silence the group takes an archive for
	// dead and gives its partitions to others. Brokers take 6s to 30m unless
	// configured otherwise. Defaults to 10s.
	SessionTimeout time.Duration

	// Topics is the regular expression a topic's name must match, anywhere
	// unless anchored. Defaults to "^[^_]".
	Topics string

	// TopicsEvery is how often new topics are looked for. Shorter lets a new
	// topic join sooner; each look asks a broker for all topics. Defaults to
	// 2s.
	TopicsEvery time.Duration

	// BatchRecords is the most records written before offsets are committed.
	// More costs memory and makes more come again after a crash; fewer costs
	// a round trip for each batch. Defaults to 2,000.
	BatchRecords int

	// BatchBytes is the size of one insert command, at most 47,000,000. A
	// single larger document is written alone. Defaults to 8 MiB.
	BatchBytes int

	// Linger is how long a batch waits for more records, 1ms at least. Longer
	// makes larger batches and later documents. Defaults to 10ms.
	Linger time.Duration

	// RetryEvery is the longest pause between attempts while MongoDB fails;
	// the first pauses are shorter. Defaults to 2s.
	RetryEvery time.Duration

	// Registerer gets the metrics. Nil registers them nowhere.
	Registerer prometheus.Registerer

	// Log defaults to discarding.
	Log *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Database, DefaultDatabase)
	setDefault(&c.Group, DefaultGroup)
	setDefault(&c.SessionTimeout, 10*time.Second)
	setDefault(&c.Topics, DefaultTopics)
	setDefault(&c.TopicsEvery, 2*time.Second)
	setDefault(&c.BatchRecords, 2000)
	setDefault(&c.BatchBytes, 8<<20)
	setDefault(&c.Linger, 10*time.Millisecond)
	setDefault(&c.RetryEvery, 2*time.Second)
	setDefault(&c.Log, slog.New(slog.DiscardHandler))

	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Brokers) == 0 {
		refuse("brokers: name at least one, as host:port")
	}
	if c.MongoURI == "" {
		refuse("mongo: give a connection string, like mongodb://127.0.0.1:27017")
	} else if err := options.Client().ApplyURI(c.MongoURI).Validate(); err != nil {
		refuse("mongo: %w", err)
	}
	if _, err := regexp.Compile(c.Topics); err != nil {
		refuse("topics: %w", err)
	}
	if c.BatchRecords < 1 {
		refuse("batch-records: must be at least 1, got %d", c.BatchRecords)
	}
	if c.BatchBytes < 1 || c.BatchBytes > maxBatchBytes {
		refuse("batch-bytes: must be 1 to %d, got %d", maxBatchBytes, c.BatchBytes)
	}
	if c.Linger < time.Millisecond {
		refuse("linger: must be at least 1ms, got %v", c.Linger)
	}
	if c.TopicsEvery < 100*time.Millisecond {
		refuse("topics-every: must be at least 100ms, got %v", c.TopicsEvery)
	}
	if c.SessionTimeout < time.Second {
		refuse("session-timeout: must be at least 1s, got %v", c.SessionTimeout)
	}
	if c.RetryEvery < time.Millisecond {
		refuse("retry-every: must be at least 1ms, got %v", c.RetryEvery)
	}
	return c, errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
