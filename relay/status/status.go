// Package status says how far a relay is behind, and what holds it back, from
// what PostgreSQL, Kafka and the relay itself tell. It changes nothing.
package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// Config says what is looked at.
type Config struct {
	Relay relay.Config

	// Ops is the operations address of a running relay, http://host:port.
	// Defaults to none: what only the relay knows is then unknown.
	Ops string

	// Over is the time over which rates are measured and the walsender is
	// watched. Defaults to 1 s.
	Over time.Duration
}

// A Status is how things stood. What is unknown is nil or empty.
type Status struct {
	At     time.Time `json:"at"`
	Source string    `json:"source"`
	Slot   string    `json:"slot"`

	Lost string `json:"lost,omitempty"` // why events may be missing; empty: none are

	Reader *Reader `json:"reader"` // who has the slot; nil: nobody
	Ops    *Ops    `json:"ops,omitempty"`
	OpsErr string  `json:"opsError,omitempty"` // why Ops is nil

	Server     lsn.Pos `json:"serverLsn"`    // end of the write-ahead log
	Confirmed  lsn.Pos `json:"confirmedLsn"` // of the slot
	Stored     lsn.Pos `json:"storedLsn"`    // in Kafka
	Sequence   int64   `json:"sequence"`     // there
	Generation int64   `json:"generation"`   // there; 0: nothing is stored

	LagBytes   int64    `json:"lagBytes"`           // from Stored to Server, with what is not the outbox's
	LagSeconds *float64 `json:"lagSeconds"`         // of the oldest event not yet in Kafka
	LagEvents  *int64   `json:"lagEvents"`          // known only where there are none
	AtLeast    bool     `json:"atLeast,omitempty"`  // LagSeconds is when the position was stored, since nothing else tells
	WALStatus  string   `json:"walStatus"`          // of the slot; missing: there is none
	Retained   int64    `json:"retainedBytes"`      // log kept for the slot
	SafeBytes  *int64   `json:"safeBytes"`          // that may be written before it may be lost; nil: without bound
	WALRate    float64  `json:"walBytesPerSecond"`  // written
	ReadRate   float64  `json:"readBytesPerSecond"` // confirmed
	EventRate  float64  `json:"eventsPerSecond"`    // published
	Bottleneck string   `json:"bottleneck"`         // none, relay, kafka, walsender, standby, paused, lost
	Why        string   `json:"why"`                // the facts that say so
	Next       string   `json:"next,omitempty"`     // to type
}

// A Reader is the walsender that streams from the slot.
type Reader struct {
	PID         int32          `json:"pid"`
	Application string         `json:"application,omitempty"`
	Client      string         `json:"client,omitempty"`
	Waits       map[string]int `json:"waits"` // how often it was seen to wait for what; "CPU": for nothing
}

// A Watcher takes statuses.
type Watcher struct{ cfg Config }

// New checks cfg and reports every problem at once. It starts nothing.
func New(cfg Config) (*Watcher, error) {
	var err error
	if cfg.Relay, err = cfg.Relay.WithDefaults(); err != nil {
		return nil, err
	}
	if cfg.Over == 0 {
		cfg.Over = time.Second
	}
	if cfg.Over < 100*time.Millisecond {
		return nil, fmt.Errorf("over: must be at least 100ms, got %v", cfg.Over)
	}
	return &Watcher{cfg: cfg}, nil
}

// Take gives one status. It takes Config.Over, and a little.
func (w *Watcher) Take(ctx context.Context) (Status, error) {
	kafka, err := relay.NewOffline(w.cfg.Relay)
	if err != nil {
		return Status{}, err
	}
	defer kafka.Close()
	config, err := pgx.ParseConfig(w.cfg.Relay.Postgres)
	if err != nil {
		return Status{}, fmt.Errorf("postgres: %w", err)
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	config.RuntimeParams["application_name"] = "walpost status"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return Status{}, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	s := Status{Source: w.cfg.Relay.Source, Slot: w.cfg.Relay.Slot}
	first, err := w.sample(ctx, conn, kafka)
	if err != nil {
		return s, err
	}
	waits, err := watch(ctx, conn, w.cfg.Relay.Slot, w.cfg.Over)
	if err != nil {
		return s, err
	}
	last, err := w.sample(ctx, conn, kafka)
	if err != nil {
		return s, err
	}
	s.fill(first, last, waits, w.cfg.Relay.Names())
	return s, nil
}

// A sample is what one look gives.
type sample struct {
	at     time.Time
	server server
	stored *position.Position
	ops    *Ops
	opsErr error
}

func (w *Watcher) sample(ctx context.Context, conn *pgx.Conn, kafka *relay.Offline) (sample, error) {
	var s sample
	var err error
	// First: what the slot has confirmed was stored before.
	if s.server, err = readServer(ctx, conn, w.cfg.Relay.Slot); err != nil {
		return s, err
	}
	s.at = time.Now()
	stored, found, err := kafka.Positions.Load(ctx)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return s, err
	}
	if found {
		s.stored = &stored
	}
	if w.cfg.Ops != "" {
		s.ops, s.opsErr = readOps(ctx, w.cfg.Ops)
	}
	return s, nil
}

// fill makes the status of two samples and what was seen between.
func (s *Status) fill(first, last sample, waits map[string]int, names slot.Names) {
	v := &last.server
	s.At, s.Server, s.Confirmed, s.WALStatus, s.Retained, s.SafeBytes = last.at, v.end, v.state.Confirmed, v.walStatus, v.retained, v.safe
	s.Ops = last.ops
	if last.opsErr != nil {
		s.OpsErr = last.opsErr.Error()
	}
	if v.state.ActivePID != 0 {
		s.Reader = &Reader{PID: v.state.ActivePID, Application: v.application, Client: v.client, Waits: waits}
	}
	from := v.state.Confirmed
	if p := last.stored; p != nil {
		s.Stored, s.Sequence, s.Generation = p.End, p.Sequence, p.Generation
		from = p.End
		if !p.Creating {
			s.Lost = relay.Lost(*p, v.state, names)
		}
	}
	if from != 0 {
		s.LagBytes = max(0, int64(s.Server)-int64(from))
	}
	s.lag(last)
	seconds := last.at.Sub(first.at).Seconds()
	s.WALRate = float64(s.Server-first.server.end) / seconds
	s.ReadRate = max(0, float64(int64(s.Confirmed)-int64(first.server.state.Confirmed))/seconds)
	switch {
	case first.ops != nil && last.ops != nil:
		s.EventRate = max(0, (last.ops.Published-first.ops.Published)/seconds)
	case first.stored != nil && last.stored != nil:
		s.EventRate = float64(last.stored.Sequence-first.stored.Sequence) / seconds
	}
	s.decide()
}

// lag says how old the oldest event is that is not in Kafka, by whoever knows
// best.
func (s *Status) lag(last sample) {
	known := func(seconds float64) { s.LagSeconds = &seconds }
	switch {
	case s.LagBytes == 0 && s.Generation > 0:
		none := int64(0)
		s.LagEvents = &none
		known(0)
	case s.Ops != nil && s.Ops.Streaming:
		known(s.Ops.LagSeconds)
	case s.Reader != nil && last.server.flushLag != nil:
		known(*last.server.flushLag)
	case s.Reader == nil && last.stored != nil:
		known(last.at.Sub(last.stored.At).Seconds())
		s.AtLeast = true
	}
}
