package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	partitions "github.com/seed-048de892/walpost/outbox/internal/partition"
)

// DefaultWindow is how long an event is recognised where [WindowConfig.Window]
// and [Config.Window] are zero.
const DefaultWindow = 7 * 24 * time.Hour

// WindowConfig says how long table inbox recognises events that come again.
// Zero values mean the default; a value that makes no sense is refused, never
// adjusted.
type WindowConfig struct {
	// Pool is where table inbox is. Its role must own the table, or be a
	// member of the role that does. Required.
	Pool *pgxpool.Pool

	// Brokers are Kafka's seed brokers, host:port each. The client may
	// describe every consumer group that table inbox has rows of. Required.
	Brokers []string

	// KafkaOptions are given to the Kafka client, for TLS and SASL say.
	KafkaOptions []kgo.Opt

	// Window is how long after it was handled an event is recognised at
	// least. Events of all groups are in one table: where several Windows keep
	// it, the shortest counts. Defaults to 7 days.
	Window time.Duration

	// Ahead is for how long beforehand partitions are made. An event from
	// beyond goes to the default partition and is recognised there too.
	// Defaults to 3 days.
	Ahead time.Duration

	// Every is the time between two passes. Defaults to 1h.
	Every time.Duration

	// Log takes what an operator must know. Defaults to discarding it.
	Log *slog.Logger
}

func (c WindowConfig) withDefaults() WindowConfig {
	fill(&c.Window, DefaultWindow)
	fill(&c.Ahead, 3*24*time.Hour)
	fill(&c.Every, time.Hour)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c *WindowConfig) check() error {
	var problems []error
	if c.Pool == nil {
		problems = append(problems, errors.New("Pool: give the pool of the database with table inbox"))
	}
	if len(c.Brokers) == 0 {
		problems = append(problems, errors.New("Brokers: name at least one, host:port"))
	}
	for _, d := range [...]struct {
		field string
		value time.Duration
	}{{"Window", c.Window}, {"Ahead", c.Ahead}, {"Every", c.Every}} {
		if d.value < time.Second {
			problems = append(problems, fmt.Errorf("%s %v: use 1s or more, or 0 for the default", d.field, d.value))
		}
	}
	return errors.Join(problems...)
}

// A Window keeps the partitions of table inbox: it makes those of coming days
// and drops what nobody needs any more. An event that was handled is
// recognised when it comes again
//
//   - within WindowConfig.Window of its handling, whatever offset it has then,
//     as when its producer repeats it;
//   - without limit, as long as its group has not committed an offset behind
//     it: a consumer that stood still for a month repeats nothing.
//
// [Inbox.Run] runs one, unless [Config.Window] is negative: then one must run
// elsewhere, as a role that owns the table. Several may run at once.
//
// It can't help where a group is set back to an offset that it had passed
// before the window.
type Window struct {
	cfg WindowConfig
	set partitions.Set
}

// NewWindow makes a Window. It connects to nothing; Run does. The error names
// every problem of cfg together.
func NewWindow(cfg WindowConfig) (*Window, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("inbox window: %w", err)
	}
	return &Window{cfg: cfg, set: partitions.Set{Table: pgx.Identifier{"inbox"}}}, nil
}

// Run keeps the window now and then every [WindowConfig.Every] until ctx ends.
// A pass that fails is logged, and nothing is lost by it: rows stay, and new
// ones go to the default partition. The error is always nil.
func (w *Window) Run(ctx context.Context) error {
	ticker := time.NewTicker(w.cfg.Every)
	defer ticker.Stop()
	for {
		kept, err := w.Keep(ctx)
		w.report(ctx, &kept, err)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Kept is what a pass of a [Window] did.
type Kept struct {
	Made    []string // partitions
	Moved   int64    // rows from the default partition into those
	Dropped []string // partitions
	Deleted int64    // rows of the default partition
	Held    []Held   // partitions older than the window that must stay
}

// A Held partition is older than the window, but an event in it may come again.
type Held struct {
	Partition string
	Reason    string
}

func (w *Window) report(ctx context.Context, kept *Kept, err error) {
	log := w.cfg.Log
	if err != nil && ctx.Err() == nil {
		log.WarnContext(ctx, "inbox partitions not kept", slog.Any("error", err), slog.Duration("next", w.cfg.Every))
	}
	for _, held := range kept.Held {
		log.WarnContext(ctx, "inbox partition stays beyond the window", slog.String("partition", held.Partition), slog.String("reason", held.Reason))
	}
	if len(kept.Made)+len(kept.Dropped) > 0 || kept.Deleted > 0 {
		log.InfoContext(ctx, "inbox partitions kept", slog.Any("made", kept.Made), slog.Int64("rows_moved", kept.Moved),
			slog.Any("dropped", kept.Dropped), slog.Int64("default_rows_deleted", kept.Deleted))
	}
}
