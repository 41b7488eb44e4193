package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/relay"
)

type commands struct {
	Config kong.ConfigFlag `help:"YAML file with flags by their names." placeholder:"FILE" env:"RELAY_CONFIG"`

	Run     runCommand            `cmd:"" help:"Publish until stopped."`
	Check   checkCommand          `cmd:"" help:"Examine what the relay needs, and say what to type."`
	Status  statusCommand         `cmd:"" help:"Say how far the relay is behind, and what holds it back."`
	Recover recoverCommand        `cmd:"" help:"Publish from the outbox table what a lost slot can no longer deliver."`
	Version daemon.VersionCommand `cmd:"" help:"Print the version."`
}

// runCommand has a flag for every field of relay.Config that an operator sets;
// the zero value means the default there.
type runCommand struct {
	outboxFlags `embed:""`

	TransactionRecords int           `help:"End a Kafka transaction when it holds so many records. Exactly-once only." default:"5000" env:"RELAY_TRANSACTION_RECORDS"`
	TransactionEvery   time.Duration `help:"End a Kafka transaction this long after its first record was read. Exactly-once only." default:"20ms" env:"RELAY_TRANSACTION_EVERY"`
	ExistingRows       string        `help:"When the slot is made and the table holds rows already: refuse to start, or skip them." enum:"refuse,skip" default:"refuse" env:"RELAY_EXISTING_ROWS"`
	LostSlot           string        `help:"When events may be missing between the stored position and the slot: stop, or continue with a new slot." enum:"stop,continue" default:"stop" env:"RELAY_LOST_SLOT"`
	MaxBufferBytes     int64         `help:"Bound of the records read and not yet acknowledged." default:"67108864" env:"RELAY_MAX_BUFFER_BYTES"`
	Linger             time.Duration `help:"How long a record waits for company in its batch." default:"1ms" env:"RELAY_LINGER"`
	ConfirmEvery       time.Duration `help:"Least time between two stored positions." default:"200ms" env:"RELAY_CONFIRM_EVERY"`
	SenderTimeout      time.Duration `help:"How long PostgreSQL keeps the slot for a relay that vanished." default:"15s" env:"RELAY_SENDER_TIMEOUT"`
	CanaryEvery        time.Duration `help:"How often a canary is written into the log to see whether the relay works; 0: never." default:"10s" env:"RELAY_CANARY_EVERY"`
	CanaryWithin       time.Duration `help:"How long a canary may take before the relay is not ready." default:"30s" env:"RELAY_CANARY_WITHIN"`
	Traces             bool          `help:"Export a span for each published record by OTLP over HTTP. The variables OTEL_EXPORTER_OTLP_… say where to, OTEL_TRACES_SAMPLER how many." env:"RELAY_TRACES"`
	StopGrace          time.Duration `help:"How long a stop waits for records on their way." default:"10s" env:"RELAY_STOP_GRACE"`
	OpsListen          string        `help:"Address of /health, /ready, /metrics, /debug/pprof, and of /pause and /resume for clients on this machine." default:"127.0.0.1:9401" env:"RELAY_OPS_LISTEN"`

	retentionFlags  `embed:"" envprefix:"RELAY_"`
	daemon.LogFlags `embed:"" envprefix:"RELAY_"`
}

// Run publishes until ctx ends. A gap ends the program with the code for a
// broken promise.
func (c *runCommand) Run(ctx context.Context, out daemon.Output) error {
	log := c.Logger(out.Stderr)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	config, err := c.relay()
	if err != nil {
		return err
	}
	config.TransactionRecords, config.TransactionEvery = c.TransactionRecords, c.TransactionEvery
	config.ExistingRows, config.LostSlot = relay.ExistingRows(c.ExistingRows), relay.LostSlot(c.LostSlot)
	config.MaxBufferBytes, config.Linger, config.ConfirmEvery = c.MaxBufferBytes, c.Linger, c.ConfirmEvery
	config.SenderTimeout, config.StopGrace = c.SenderTimeout, c.StopGrace
	config.CanaryEvery, config.CanaryWithin = c.CanaryEvery, c.CanaryWithin
	if c.CanaryEvery == 0 {
		config.CanaryEvery = -1
	}
	config.Log, config.Metrics = log, registry
	var traces traces
	if c.Traces {
		if err := traces.open(ctx, log); err != nil {
			return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
		}
		defer traces.close(ctx)
		config.Tracer = traces.provider
	}
	r, err := relay.New(config)
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	ops := daemon.Ops{Listen: c.OpsListen, Registry: registry, Ready: r.Ready, Log: log, Controls: map[string]func() string{
		"pause":  func() string { r.Pause(); return "paused" },
		"resume": func() string { r.Resume(); return "resumed" },
	}}
	parts := []func(context.Context) error{r.Run, ops.Run, func(ctx context.Context) error { return c.Verify(ctx, log) }}
	keep, err := c.part(config.Postgres, c.Table, r.Slot(), registry, log)
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	if keep != nil {
		parts = append(parts, keep)
	}
	err = daemon.Run(ctx, parts...)
	if gap, ok := errors.AsType[*relay.GapError](err); ok {
		return &daemon.ExitError{Code: daemon.ExitPromise, Err: gap}
	}
	if err != nil {
		return fmt.Errorf("relay: %w", c.explain(err))
	}
	return nil
}
