// Package recovery publishes from the outbox table what a lost slot can no
// longer deliver: exactly the events that Kafka does not have.
//
// How it tells them apart:
//
//	rows that committed before the new slot ─┐  the slot's exported snapshot sees
//	                                         │  exactly these; the slot delivers
//	                                         │  all others
//	ids of the source that Kafka holds ──────┴─► the rest, by aggregate version
//	                                             and id ─► Kafka ─► new position
//
// Only one connection is used for the lock, the ids and the rows, so each look
// at the rows proves that the lock is still held.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// An Uncertain says what to do with rows of which it can't be known whether
// they were published: Kafka may have had them, and have deleted them.
type Uncertain string

// The answers to what can't be known.
const (
	Refuse  Uncertain = "refuse"  // publish nothing, and say how many there are
	Publish Uncertain = "publish" // some may come twice
	Skip    Uncertain = "skip"    // some may never be published
)

// DefaultLongestTransaction is what Config.LongestTransaction defaults to.
const DefaultLongestTransaction = time.Hour

// Config says what is recovered. Relay must be that of the relay that
// published.
type Config struct {
	Relay relay.Config

	// Apply does it. Without it nothing is changed, and the report says what
	// would be done.
	Apply bool

	// LongestTransaction is how long a transaction with events may have been
	// open. Rows that are older by more than this than the last event of the
	// stored position are taken to be published, and not looked at. Longer
	// makes recovery read more of the table and of Kafka. Defaults to 1 h.
	LongestTransaction time.Duration

	// Since overrides LongestTransaction: rows with an earlier created_at are
	// not looked at. Defaults to what LongestTransaction gives.
	Since time.Time

	// Uncertain says what to do with rows that Kafka may have had and deleted.
	// Defaults to [Refuse].
	Uncertain Uncertain

	Log *slog.Logger // defaults to none
}

// A Recovery publishes what Kafka lacks.
type Recovery struct{ cfg Config }

// New checks cfg and reports every problem at once. It starts nothing.
func New(cfg Config) (*Recovery, error) {
	var err error
	var errs []error
	if cfg.Relay, err = cfg.Relay.WithDefaults(); err != nil {
		errs = append(errs, err)
	}
	if cfg.LongestTransaction == 0 {
		cfg.LongestTransaction = DefaultLongestTransaction
	}
	if cfg.LongestTransaction < 0 {
		errs = append(errs, fmt.Errorf("longest-transaction: must be above 0, got %v", cfg.LongestTransaction))
	}
	switch cfg.Uncertain {
	case "":
		cfg.Uncertain = Refuse
	case Refuse, Publish, Skip:
	default:
		errs = append(errs, fmt.Errorf("uncertain: %q: use %s, %s or %s", cfg.Uncertain, Refuse, Publish, Skip))
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Recovery{cfg: cfg}, nil
}

// A RefusedError says why nothing was recovered, and what to type instead.
type RefusedError struct {
	What string
	Hint string
}

func (e *RefusedError) Error() string { return e.What + "; " + e.Hint }

// Run recovers, or says what it would do. It refuses with a [*RefusedError]
// where nothing is lost, where a relay works, and where it can't know what was
// published. The report is valid as far as it went also with an error.
//
// Ending ctx, or a crash, leaves what is published by then, and a relay that
// still refuses to start: run it again, it goes on with what is missing then.
func (r *Recovery) Run(ctx context.Context) (Report, error) {
	w := &work{cfg: r.cfg, log: r.cfg.Log, names: r.cfg.Relay.Names()}
	w.report.Source, w.report.Slot = r.cfg.Relay.Source, r.cfg.Relay.Slot
	err := w.run(ctx)
	return w.report, err
}

// work is one run.
type work struct {
	cfg   Config
	log   *slog.Logger
	names slot.Names

	conn   *pgx.Conn // with the lock
	kafka  *relay.Offline
	state  slot.State
	stored position.Position
	table  table
	report Report
}

func (w *work) run(ctx context.Context) (err error) {
	if w.kafka, err = relay.NewOffline(w.cfg.Relay); err != nil {
		return err
	}
	defer w.kafka.Close()
	if w.conn, err = pgx.Connect(ctx, w.cfg.Relay.Postgres); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, w.conn.Close(context.WithoutCancel(ctx))) }()
	if err := w.begin(ctx); err != nil {
		return err
	}
	if err := w.look(ctx); err != nil {
		return err
	}
	if !w.cfg.Apply {
		return nil
	}
	return w.apply(ctx)
}

// lockFor is how long the lock and the slot are asked for: PostgreSQL gives
// them back a moment after the relay that had them has ended.
const (
	lockFor   = 2 * time.Second
	lockEvery = 100 * time.Millisecond
)

// lock takes the lock, when nobody has it and nobody reads the slot.
func (w *work) lock(ctx context.Context) (taken bool, err error) {
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for until := time.Now().Add(lockFor); ; {
		if !taken {
			if taken, err = relay.TryLock(ctx, w.conn, w.names.Slot); err != nil {
				return false, err
			}
		}
		free := false
		err := w.conn.QueryRow(ctx, `select not exists (select from pg_replication_slots where slot_name = $1 and active)`, w.names.Slot).Scan(&free)
		if err != nil {
			return false, fmt.Errorf("look at slot %s: %w", w.names.Slot, err)
		}
		if taken && free || time.Now().After(until) {
			return taken, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// begin takes the lock and finds out what is lost.
func (w *work) begin(ctx context.Context) error {
	taken, err := w.lock(ctx)
	if err != nil {
		return err
	}
	if !taken {
		return &RefusedError{
			What: fmt.Sprintf("a relay of slot %s is at work, or another recovery", w.names.Slot),
			Hint: "stop every relay of this source first; if it can't go on, it says why: relay status",
		}
	}
	if w.state, err = slot.Inspect(ctx, w.conn, w.names); err != nil {
		return err
	}
	if w.state.ActivePID != 0 {
		return &RefusedError{
			What: fmt.Sprintf("slot %s is in use by process %d", w.names.Slot, w.state.ActivePID),
			Hint: fmt.Sprintf("stop who reads it; select * from pg_stat_activity where pid = %d", w.state.ActivePID),
		}
	}
	if err := w.position(ctx); err != nil {
		return err
	}
	if w.cfg.Apply && (w.cfg.Relay.Delivery == relay.ExactlyOnce || w.stored.Transactional) {
		if err := w.kafka.Fence(ctx); err != nil {
			return err
		}
		if err := w.position(ctx); err != nil { // it may have moved until then
			return err
		}
	}
	w.report.Stored, w.report.Sequence = w.stored.End, w.stored.Sequence
	if w.stored.Slot != w.names.Slot {
		return &RefusedError{
			What: fmt.Sprintf("the stored position %v is of slot %s, not of %s", w.stored.End, w.stored.Slot, w.names.Slot),
			Hint: "give --slot as the relay has it",
		}
	}
	if w.stored.Creating {
		w.report.Lost = "a start was cut off while it made the slot anew"
	} else if w.report.Lost = relay.Lost(w.stored, w.state, w.names); w.report.Lost == "" {
		return &RefusedError{
			What: fmt.Sprintf("nothing is lost: slot %s delivers what is behind the stored position %v", w.names.Slot, w.stored.End),
			Hint: "run: relay run",
		}
	}
	return nil
}

func (w *work) position(ctx context.Context) error {
	stored, found, err := w.kafka.Positions.Load(ctx)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	if !found {
		return &RefusedError{
			What: fmt.Sprintf("topic %s holds no position of source %s, so which of its events were published is unknown", w.cfg.Relay.PositionsTopic, w.cfg.Relay.Source),
			Hint: "give --source and --positions-topic as the relay has them",
		}
	}
	w.stored = stored
	return nil
}
