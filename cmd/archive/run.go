package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/archive/api"
	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
)

// runCommand has a flag for every field of archive.Config that an operator
// sets; the zero value means the default there.
type runCommand struct {
	Group          string        `help:"Consumer group; archives of one group share the work." default:"archive" env:"ARCHIVE_GROUP"`
	Instance       string        `help:"Name of this archive in its group, kept across restarts: it goes on at once after a crash." env:"ARCHIVE_INSTANCE"`
	SessionTimeout time.Duration `help:"After what silence the group gives this archive's work to others." default:"10s" env:"ARCHIVE_SESSION_TIMEOUT"`
	Topics         string        `help:"Regular expression of the topics to keep. Default: all but those whose names begin with an underscore." default:"^[^_]" env:"ARCHIVE_TOPICS"`
	TopicsEvery    time.Duration `help:"How often new topics are looked for." default:"2s" env:"ARCHIVE_TOPICS_EVERY"`
	BatchRecords   int           `help:"Most records written before offsets are committed." default:"2000" env:"ARCHIVE_BATCH_RECORDS"`
	BatchBytes     int           `help:"Size of one insert command." default:"8388608" env:"ARCHIVE_BATCH_BYTES"`
	Linger         time.Duration `help:"How long a batch waits for more records." default:"10ms" env:"ARCHIVE_LINGER"`
	Listen         string        `help:"Address of the reading API." default:"127.0.0.1:3010" env:"ARCHIVE_LISTEN"`
	OpsListen      string        `help:"Address of /health, /ready, /metrics and /debug/pprof." default:"127.0.0.1:9402" env:"ARCHIVE_OPS_LISTEN"`

	kafkaflags.Flags `embed:"" envprefix:"ARCHIVE_"`
	mongoFlags       `embed:""`
	daemon.LogFlags  `embed:"" envprefix:"ARCHIVE_"`
}

// Run archives and serves until ctx ends.
func (c *runCommand) Run(ctx context.Context, out daemon.Output) error {
	log := c.Logger(out.Stderr)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	kafka, err1 := c.Options()
	mongo, err2 := c.uri()
	if err := errors.Join(err1, err2); err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	a, err := archive.New(archive.Config{
		Brokers: c.Brokers, KafkaOptions: kafka, Group: c.Group, Instance: c.Instance, SessionTimeout: c.SessionTimeout,
		Topics: c.Topics, TopicsEvery: c.TopicsEvery,
		MongoURI: mongo, Database: c.Database,
		BatchRecords: c.BatchRecords, BatchBytes: c.BatchBytes, Linger: c.Linger,
		Registerer: registry, Log: log,
	})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	return c.withStore(ctx, func(store *archive.Store) error {
		ops := daemon.Ops{Listen: c.OpsListen, Registry: registry, Ready: a.Ready, Log: log}
		read := func(ctx context.Context) error {
			return daemon.Serve(ctx, "archive", c.Listen, api.Handler(store, log), log)
		}
		verify := func(ctx context.Context) error { return c.Verify(ctx, log) }
		if err := daemon.Run(ctx, a.Run, ops.Run, read, verify); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		return nil
	})
}
