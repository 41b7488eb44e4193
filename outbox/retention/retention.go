// Package retention makes the partitions of an outbox table ahead and drops
// old ones, never before every replication slot has passed them.
//
// A partition goes in two steps. First it is detached, and in that transaction,
// when all that have written into it have ended, the end of the write-ahead
// log is noted in the table's comment. It is dropped when every slot has
// confirmed that position: each of its rows is then in Kafka. With a relay
// that stands still, with no slot at all or with one that is lost, nothing is
// dropped.
//
// What a partition is dropped for is its place. Rows are kept for the case that
// a slot is lost, to be published again or compared with the topics: choose
// Keep by how long it takes to notice.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox/internal/partition"
)

// A Period is how much time one partition holds, in UTC.
type Period = partition.Period

// The periods.
const (
	Day   = partition.Day // the zero Period
	Hour  = partition.Hour
	Week  = partition.Week // from Monday
	Month = partition.Month
)

// DefaultKeep is how long rows are kept where [Config] says nothing.
const DefaultKeep = 7 * 24 * time.Hour

// A DB is a pgx pool or connection. Its role owns the outbox table or is a
// member of the owner.
type DB interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Config says what is kept, and how.
type Config struct {
	// DB is the database with the outbox table. It must be set. With a
	// *pgx.Conn nothing goes on after the connection is lost; a pool needs one
	// connection.
	DB DB

	// Table is the outbox table, {"outbox"} or {"app", "outbox"}. It is quoted.
	// Defaults to {"outbox"}, found by the search path.
	Table pgx.Identifier

	// Keep is how long rows are kept at least, counted from the end of their
	// partition. Less frees disk sooner; more helps longer after a slot was
	// lost. Defaults to [DefaultKeep].
	Keep time.Duration

	// Period is how much time one partition holds. Changing it later is fine:
	// new partitions are made around those that are there. Defaults to [Day].
	Period Period

	// Ahead is how many periods have a partition beforehand, beside the current
	// one. Should nobody run this for longer, rows go to the default partition
	// and are moved out of it later. Defaults to 3.
	Ahead int

	// Slots are the logical replication slots that must have passed a partition
	// before it is dropped. A slot does not say whose publication it reads, so
	// by default every logical slot of the database counts: one that has
	// nothing to do with the outbox and stands still then keeps partitions.
	Slots []string

	// Own is one more slot that must exist and have passed, also where Slots is
	// empty: that of the relay beside which this runs. Defaults to none.
	Own string

	// Every is the pause between two passes of Run. Defaults to a minute; after
	// a pass that failed it is longer, up to 15 minutes.
	Every time.Duration

	// LockTimeout is the longest wait for a lock behind which writers may have
	// to stand. Defaults to 200 ms.
	LockTimeout time.Duration

	// HoldTimeout is the longest time for which such a lock is held; a pass
	// that would need more fails. Defaults to 2 s.
	HoldTimeout time.Duration

	// Now is the clock. Defaults to the database's, by which created_at is set.
	Now func() time.Time

	// Hooks see every pass. Defaults to none.
	Hooks []Hook

	// Log gets what was done and what failed. Defaults to none.
	Log *slog.Logger
}

// A Hook sees passes, as a metric does.
type Hook interface {
	// OnPass is called at the end of every pass, from the goroutine that runs
	// it. err is what the pass returns.
	OnPass(ctx context.Context, p Pass, err error)
}

// A Retention keeps one outbox table. Any number may work on one table, from
// any number of processes.
type Retention struct {
	cfg Config
	set partition.Set
}

// New checks cfg and reports every problem of it at once. It starts nothing.
func New(cfg Config) (*Retention, error) {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.DB == nil {
		problem("DB: must be set, to a *pgxpool.Pool for example")
	}
	if len(cfg.Table) == 0 {
		cfg.Table = pgx.Identifier{"outbox"}
	}
	if len(cfg.Table) > 2 || slices.Contains(cfg.Table, "") {
		problem("Table: %q: give {table} or {schema, table}", []string(cfg.Table))
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		byDef time.Duration
		least time.Duration
	}{
		{"Keep", &cfg.Keep, DefaultKeep, time.Minute},
		{"Every", &cfg.Every, time.Minute, time.Second},
		{"LockTimeout", &cfg.LockTimeout, 200 * time.Millisecond, time.Millisecond},
		{"HoldTimeout", &cfg.HoldTimeout, 2 * time.Second, time.Millisecond},
	} {
		if *d.value == 0 {
			*d.value = d.byDef
		}
		if *d.value < d.least {
			problem("%s: must be at least %v, or 0 for %v, got %v", d.name, d.least, d.byDef, *d.value)
		}
	}
	if cfg.Period > Month {
		problem("Period: %v: use Hour, Day, Week or Month", cfg.Period)
	}
	if cfg.Ahead == 0 {
		cfg.Ahead = 3
	}
	if cfg.Ahead < 1 || cfg.Ahead > 1000 {
		problem("Ahead: must be between 1 and 1000 periods, or 0 for 3, got %d", cfg.Ahead)
	}
	if slices.Contains(cfg.Slots, "") {
		problem("Slots: %q: name slots, or leave it empty for every logical slot of the database", cfg.Slots)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("configure retention:\n%w", err)
	}
	return &Retention{cfg: cfg, set: partition.Set{
		Table: cfg.Table, Period: cfg.Period, LockTimeout: cfg.LockTimeout, HoldTimeout: cfg.HoldTimeout,
	}}, nil
}

// longestPause is between two passes that fail.
const longestPause = 15 * time.Minute

// Run makes passes, the first at once, until ctx ends. It returns nil then, and
// not before: what fails is logged, shown to the hooks and tried again. A pass
// that is cut off leaves nothing half done.
func (r *Retention) Run(ctx context.Context) error {
	pause := r.cfg.Every
	for {
		if _, err := r.Step(ctx); err == nil {
			pause = r.cfg.Every
		} else if ctx.Err() == nil {
			r.cfg.Log.WarnContext(ctx, "retention pass failed", slog.String("table", r.cfg.Table.Sanitize()), slog.Any("error", err), slog.Duration("pause", pause))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = max(r.cfg.Every, min(2*pause, longestPause))
	}
}

// A BusyError says that a lock on the table could not be had without making
// writers wait for longer than LockTimeout. The next pass tries again.
type BusyError = partition.BusyError

// A SetupError says what in PostgreSQL keeps partitions from being kept, and
// what the operator can do. It does not pass by itself.
type SetupError = partition.SetupError
