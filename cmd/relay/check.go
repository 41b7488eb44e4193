package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/relay/check"
)

// checkCommand has a flag for every field of check.Config.
type checkCommand struct {
	outboxFlags `embed:""`

	Topics   []string `name:"topics" help:"Topics to look at beside those that a sample of the table's rows names, separated by commas."`
	MaxBytes int      `help:"Largest event that writers write (outbox.Writer.MaxBytes): topics must take it." default:"1000000"`
	JSON     bool     `name:"json" help:"Print the findings as JSON."`
}

// Run prints what was found. The worst finding gives the exit code.
func (c *checkCommand) Run(ctx context.Context, out daemon.Output) error {
	config, err := c.relay()
	if err != nil {
		return err
	}
	look, err := check.New(check.Config{Relay: config, Topics: c.Topics, MaxBytes: c.MaxBytes})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	report, err := look.Run(ctx)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if c.JSON {
		err = json.NewEncoder(out.Stdout).Encode(report)
	} else {
		_, err = report.WriteTo(out.Stdout)
	}
	if err != nil {
		return fmt.Errorf("print the findings: %w", err)
	}
	switch report.Worst() {
	case check.Broken:
		return &daemon.ExitError{Code: daemon.ExitPromise, Err: errors.New("events may be missing in Kafka: see the findings")}
	case check.Error:
		return errors.New("the relay can't work: see the findings")
	default:
		return nil
	}
}
