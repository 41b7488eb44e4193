package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/relay/recovery"
)

// recoverCommand has a flag for every field of recovery.Config.
type recoverCommand struct {
	outboxFlags `embed:""`

	Apply              bool          `help:"Do it. Without this nothing is changed, and the report says what would be done."`
	LongestTransaction time.Duration `help:"How long a transaction with events may have been open. Rows that are older by more than this than the last event of the stored position are not looked at." default:"1h"`
	Since              time.Time     `help:"Look at rows with a created_at of this time or later (RFC 3339), whatever --longest-transaction gives." placeholder:"TIME"`
	Uncertain          string        `help:"What to do with events that Kafka may have had, and deleted: refuse to do anything, publish them (some may come twice), or skip them (some may be lost)." enum:"refuse,publish,skip" default:"refuse"`
	JSON               bool          `name:"json" help:"Print the report as JSON."`

	daemon.LogFlags `embed:"" envprefix:"RELAY_"`
}

// Run recovers, or says what it would do.
func (c *recoverCommand) Run(ctx context.Context, out daemon.Output) error {
	config, err := c.relay()
	if err != nil {
		return err
	}
	r, err := recovery.New(recovery.Config{
		Relay: config, Apply: c.Apply, LongestTransaction: c.LongestTransaction, Since: c.Since,
		Uncertain: recovery.Uncertain(c.Uncertain), Log: c.Logger(out.Stderr),
	})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	report, err := r.Run(ctx)
	if report.Lost != "" {
		err = errors.Join(err, c.print(out, &report))
	}
	if err != nil {
		return fmt.Errorf("recover: %w", c.explain(err))
	}
	return nil
}

func (c *recoverCommand) print(out daemon.Output, report *recovery.Report) error {
	if c.JSON {
		return json.NewEncoder(out.Stdout).Encode(report)
	}
	_, err := report.WriteTo(out.Stdout)
	return err
}
