package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/outbox/retention"
)

// retentionFlags make the relay keep the outbox table's partitions too.
type retentionFlags struct {
	Retention         time.Duration    `help:"Make partitions of the outbox table ahead, and drop those whose rows are all older than this once every slot has passed them: 168h. Default: off." env:"RETENTION"`
	RetentionPeriod   retention.Period `help:"How much time a partition holds: hour, day, week or month." default:"day" env:"RETENTION_PERIOD"`
	RetentionAhead    int              `help:"Partitions made ahead." default:"3" env:"RETENTION_AHEAD"`
	RetentionSlots    []string         `help:"Slots that must have passed a partition, beside the relay's own. Default: every logical slot of the database." env:"RETENTION_SLOTS"`
	RetentionEvery    time.Duration    `help:"Pause between two looks." default:"1m" env:"RETENTION_EVERY"`
	RetentionHold     time.Duration    `help:"Longest time for which writers may wait once the table is locked; what would take longer is given up." default:"2s" env:"RETENTION_HOLD"`
	RetentionPostgres string           `help:"Connection string for retention, whose role must own the outbox table. Default: that of the relay." placeholder:"DSN" env:"RETENTION_POSTGRES"`

	RetentionPostgresFile string `help:"File with that connection string, read at the start." placeholder:"FILE" env:"RETENTION_POSTGRES_FILE"`
}

// part gives what keeps the partitions beside the relay whose database, table
// and slot are given; nil where it is off.
func (f *retentionFlags) part(postgres, table, slot string, registry prometheus.Registerer, log *slog.Logger) (func(context.Context) error, error) {
	if f.Retention == 0 {
		return nil, nil
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	own, err := daemon.DSN("--retention-postgres", f.RetentionPostgres, f.RetentionPostgresFile)
	if err != nil {
		return nil, err
	}
	if own != "" {
		postgres = own
	}
	config, err := pgxpool.ParseConfig(postgres)
	if err != nil {
		return nil, errors.New("--retention-postgres: a pool_… parameter is wrong (the connection string is not printed here, as it may hold a password)")
	}
	config.MaxConns, config.MaxConnIdleTime = 1, 10*time.Second // idle between passes
	config.ConnConfig.RuntimeParams["application_name"] = "walpost retention"
	metrics := newRetentionMetrics()
	kept := retention.Config{
		Table: strings.SplitN(table, ".", 2), Keep: f.Retention, Period: f.RetentionPeriod, Ahead: f.RetentionAhead, Every: f.RetentionEvery, HoldTimeout: f.RetentionHold,
		Slots: f.RetentionSlots, Own: slot, Hooks: []retention.Hook{metrics}, Log: log,
		DB: (*pgxpool.Pool)(nil), // checked here, connected in Run
	}
	if _, err := retention.New(kept); err != nil {
		return nil, err
	}
	if err := metrics.register(registry); err != nil {
		return nil, fmt.Errorf("register the metrics of retention: %w", err)
	}
	return func(ctx context.Context) error {
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return fmt.Errorf("retention: %w", err)
		}
		defer pool.Close()
		kept.DB = pool
		r, err := retention.New(kept)
		if err != nil {
			return err
		}
		return r.Run(ctx)
	}, nil
}

// check finds what retention would read as its default or refuse by its own
// names.
func (f *retentionFlags) check() error {
	var errs []error
	if f.Retention < time.Minute {
		errs = append(errs, fmt.Errorf("retention: must be at least 1m, or 0 for none, got %v", f.Retention))
	}
	if f.RetentionAhead < 1 {
		errs = append(errs, fmt.Errorf("retention-ahead: must be at least 1, got %d", f.RetentionAhead))
	}
	if f.RetentionEvery < time.Second {
		errs = append(errs, fmt.Errorf("retention-every: must be at least 1s, got %v", f.RetentionEvery))
	}
	if f.RetentionHold < time.Millisecond {
		errs = append(errs, fmt.Errorf("retention-hold: must be at least 1ms, got %v", f.RetentionHold))
	}
	return errors.Join(errs...)
}

// retentionMetrics show the last pass.
type retentionMetrics struct {
	oldest, lastPass, defaultBytes prometheus.Gauge
	dropped, failures              prometheus.Counter
	blocked                        *prometheus.GaugeVec
}

func newRetentionMetrics() *retentionMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "relay_retention_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "relay_retention_" + name, Help: help})
	}
	return &retentionMetrics{
		oldest:       gauge("oldest_partition_timestamp_seconds", "Beginning of the oldest attached partition."),
		lastPass:     gauge("last_pass_timestamp_seconds", "End of the last pass that did not fail."),
		defaultBytes: gauge("default_partition_bytes", "Size of the default partition, near zero while partitions are made ahead."),
		dropped:      counter("partitions_dropped_total", "Partitions dropped by this process."),
		failures:     counter("failed_passes_total", "Passes that failed, as the log says."),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "relay_retention_blocked_partitions", Help: "Partitions old enough to be dropped that wait for a slot; without a slot the label is empty.",
		}, []string{"slot"}),
	}
}

func (m *retentionMetrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.oldest), r.Register(m.lastPass), r.Register(m.defaultBytes),
		r.Register(m.dropped), r.Register(m.failures), r.Register(m.blocked))
}

// OnPass implements [retention.Hook].
func (m *retentionMetrics) OnPass(_ context.Context, p retention.Pass, err error) {
	m.dropped.Add(float64(len(p.Dropped)))
	m.blocked.Reset()
	for _, w := range p.Waiting {
		m.blocked.WithLabelValues(w.Slot).Inc()
	}
	if !p.Oldest.IsZero() {
		m.oldest.Set(float64(p.Oldest.Unix()))
	}
	m.defaultBytes.Set(float64(p.DefaultBytes))
	if err != nil {
		m.failures.Inc()
		return
	}
	m.lastPass.SetToCurrentTime()
}
