// Package check examines what a relay needs, in PostgreSQL and in Kafka, and
// says of each thing whether it is well and what to type if it is not. It
// changes nothing.
package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/limits"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A Level says how bad a finding is.
type Level string

// The levels, from good to bad.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, and something about it may hurt
	Error   Level = "error"   // the relay does not work
	Broken  Level = "broken"  // events may be missing in Kafka
)

// A Finding is one thing that was looked at.
type Finding struct {
	Area  string `json:"area"` // server, role, table, publication, slot, failover, kafka
	Name  string `json:"name"`
	Level Level  `json:"level"`
	What  string `json:"what"`
	Next  string `json:"next,omitempty"` // to type or to change; empty: nothing
}

// Config says what is checked.
type Config struct {
	Relay relay.Config

	// Topics are looked at beside those that a sample of the table's rows
	// names.
	Topics []string

	// MaxBytes is the largest event that writers write: topics must take it.
	// Defaults to outbox.DefaultMaxBytes.
	MaxBytes int
}

// A Check looks at everything once.
type Check struct{ cfg Config }

// New checks cfg and reports every problem at once. It starts nothing.
func New(cfg Config) (*Check, error) {
	var err error
	if cfg.Relay, err = cfg.Relay.WithDefaults(); err != nil {
		return nil, err
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = outbox.DefaultMaxBytes
	}
	if cfg.MaxBytes < 0 {
		return nil, fmt.Errorf("max-bytes: must be above 0, got %d", cfg.MaxBytes)
	}
	return &Check{cfg: cfg}, nil
}

// Run looks. What can't be looked at, a server that does not answer included,
// is a finding. The error is the end of ctx.
func (c *Check) Run(ctx context.Context) (Report, error) {
	l := &look{cfg: c.cfg, names: c.cfg.Relay.Names()}
	kafka, err := relay.NewOffline(c.cfg.Relay)
	if err != nil {
		return Report{}, err
	}
	defer kafka.Close()
	l.kafka = kafka
	config, err := pgx.ParseConfig(c.cfg.Relay.Postgres)
	if err != nil {
		return Report{}, fmt.Errorf("postgres: %w", err)
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	config.RuntimeParams["application_name"] = "walpost check"
	if l.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		l.add("server", "connection", Error, err.Error(), "compare --postgres with the server's address and pg_hba.conf")
	} else {
		defer func() { _ = l.conn.Close(context.WithoutCancel(ctx)) }()
		for _, f := range []func(context.Context) error{l.server, l.readSlot, l.role, l.table, l.publication} {
			if err := f(ctx); err != nil {
				l.add("server", "question", Error, err.Error(), "")
			}
		}
	}
	if err := l.brokers(ctx); err != nil {
		l.add("kafka", "question", Error, err.Error(), "")
	}
	if l.conn != nil && l.state.SystemID != "" {
		l.slot()
		if err := l.failover(ctx); err != nil {
			l.add("failover", "question", Error, err.Error(), "")
		}
	}
	if ctx.Err() != nil {
		return Report{}, context.Cause(ctx)
	}
	return Report{Source: c.cfg.Relay.Source, Slot: l.names.Slot, Findings: l.findings}, nil
}

// look is one run.
type look struct {
	cfg      Config
	names    slot.Names
	conn     *pgx.Conn // nil: no connection
	kafka    *relay.Offline
	findings []Finding

	major     int
	standby   bool
	state     slot.State
	found     found // the slot
	topics    []string
	stored    *position.Position // nil: none
	positions bool               // they could be read
}

func (l *look) add(area, name string, level Level, what, next string) {
	if level == OK {
		next = ""
	}
	l.findings = append(l.findings, Finding{Area: area, Name: name, Level: level, What: what, Next: next})
}

// unless adds OK where good holds, else level and what to do.
func (l *look) unless(good bool, area, name string, level Level, what, next string) {
	if good {
		level = OK
	}
	l.add(area, name, level, what, next)
}

// needed is what topics must take for an event of MaxBytes.
func (l *look) needed() int64 { return int64(l.cfg.MaxBytes) + limits.Overhead }

func noRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
