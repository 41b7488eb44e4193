// Package write measures what it costs to write events in the transaction that
// caused them: with package outbox in each of its modes, with plain pgx, and
// with the SQL publisher of Watermill and the inserts of River.
//
// All contenders run against one PostgreSQL in one process and take turns, so
// that their ratios hold where the machine is slow or busy. After every turn
// the events are counted: who wrote fewer than were asked of it is an error,
// not a fast contender.
package write

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Config says what is measured. The zero value of every field but DSN is
// usable.
type Config struct {
	// DSN is of a superuser and an empty database on the server to measure.
	// It must be set.
	DSN string

	// Clients is how many connections write single events at once. With
	// synchronous_commit on, few of them wait for the disk and seldom for
	// anything else. Defaults to 16.
	Clients int

	// BatchClients is how many write many events at once. Defaults to 4.
	BatchClients int

	// Rounds is how often the contenders take turns, without the first round,
	// which is not counted. Figures are medians of the rounds. Defaults to 11.
	Rounds int

	// Turn is how long one contender runs in a round, at least one transaction
	// of each client. Short turns in many rounds are better than the reverse:
	// what disturbs the machine then hits all alike. Defaults to 100 ms.
	Turn time.Duration

	// Sizes are the numbers of events in a transaction that batches are
	// measured with. Defaults to 1, 10, 100, 1,000 and 10,000.
	Sizes []int

	// PayloadBytes is the length of each payload, JSON. Defaults to 400.
	PayloadBytes int

	// Parts are the parts that are measured. Defaults to all: [PartClient],
	// [PartTransactions] and [PartBatches].
	Parts []string

	// ServerCPU says that the server's processes are on this machine under
	// the process ids that PostgreSQL tells, so that their CPU can be read.
	ServerCPU bool

	// WarmWAL is how many bytes of write-ahead log the server keeps for reuse
	// (its min_wal_size). That much is written beforehand, and there is a
	// checkpoint before every round, so that nobody pays for making new
	// files, as nobody does on a server that has been up for long. Zero does
	// neither.
	WarmWAL int64

	// Progress gets a line for each thing measured. Defaults to nobody.
	Progress io.Writer
}

// The parts of a run.
const (
	PartClient       = "client"       // CPU and allocations in Go
	PartTransactions = "transactions" // one event a transaction, several clients
	PartBatches      = "batches"      // many events a transaction
)

func (c Config) withDefaults() (Config, error) {
	c.Clients = cmp.Or(c.Clients, 16)
	c.BatchClients = cmp.Or(c.BatchClients, 4)
	c.Rounds = cmp.Or(c.Rounds, 11)
	c.Turn = cmp.Or(c.Turn, 100*time.Millisecond)
	c.PayloadBytes = cmp.Or(c.PayloadBytes, 400)
	if len(c.Sizes) == 0 {
		c.Sizes = []int{1, 10, 100, 1000, 10_000}
	}
	if len(c.Parts) == 0 {
		c.Parts = []string{PartClient, PartTransactions, PartBatches}
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	var errs []error
	if c.DSN == "" {
		errs = append(errs, errors.New("dsn: must be set"))
	}
	if c.Clients < 1 {
		errs = append(errs, fmt.Errorf("clients: must be at least 1, got %d", c.Clients))
	}
	if c.BatchClients < 1 {
		errs = append(errs, fmt.Errorf("batch-clients: must be at least 1, got %d", c.BatchClients))
	}
	if c.Rounds < 1 {
		errs = append(errs, fmt.Errorf("rounds: must be at least 1, got %d", c.Rounds))
	}
	if c.Turn < time.Millisecond {
		errs = append(errs, fmt.Errorf("turn: must be at least 1ms, got %v", c.Turn))
	}
	if c.PayloadBytes < minPayload {
		errs = append(errs, fmt.Errorf("payload-bytes: must be at least %d, got %d", minPayload, c.PayloadBytes))
	}
	if c.WarmWAL < 0 {
		errs = append(errs, fmt.Errorf("warm-wal: must not be negative, got %d", c.WarmWAL))
	}
	for _, n := range c.Sizes {
		// Watermill sends 3 parameters an event, and a statement has 65,535.
		if n < 1 || n > 21_845 {
			errs = append(errs, fmt.Errorf("sizes: must be 1 to 21845, got %d", n))
		}
	}
	for _, p := range c.Parts {
		if !slices.Contains([]string{PartClient, PartTransactions, PartBatches}, p) {
			errs = append(errs, fmt.Errorf("parts: must be of %s, %s and %s, got %q", PartClient, PartTransactions, PartBatches, p))
		}
	}
	return c, errors.Join(errs...)
}

// Run makes the tables in the database, measures, and writes what it found to
// out as Markdown. It stops early, with an error, when ctx ends.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	db, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.close()
	var b strings.Builder
	if err := db.describe(ctx, &b); err != nil {
		return err
	}
	if err := db.warmWAL(ctx); err != nil {
		return err
	}
	parts := map[string]func(context.Context, *database, *strings.Builder) error{
		PartClient: measureClient, PartTransactions: measureTransactions, PartBatches: measureBatches,
	}
	for _, name := range cfg.Parts {
		if err := parts[name](ctx, db, &b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err = io.WriteString(out, b.String())
	return err
}
