package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/relay/status"
)

// statusCommand has a flag for every field of status.Config.
type statusCommand struct {
	outboxFlags `embed:""`

	Ops   string        `help:"Operations address of a running relay, for what only it knows." placeholder:"URL" env:"RELAY_OPS"`
	Over  time.Duration `help:"Time over which rates are measured and the walsender is watched." default:"1s"`
	Watch bool          `help:"Print again and again until stopped."`
	JSON  bool          `name:"json" help:"Print JSON, an object a line."`
}

// Run prints how far the relay is behind. Events that may be missing end it
// with the code for a broken promise.
func (c *statusCommand) Run(ctx context.Context, out daemon.Output) error {
	config, err := c.relay()
	if err != nil {
		return err
	}
	w, err := status.New(status.Config{Relay: config, Ops: strings.TrimSuffix(c.Ops, "/"), Over: c.Over})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	for {
		s, err := w.Take(ctx)
		if c.Watch && ctx.Err() != nil {
			return nil //nolint:nilerr // the stop is why it failed
		}
		if err == nil {
			err = c.print(out, &s)
		}
		if err != nil {
			return fmt.Errorf("status: %w", c.explain(err))
		}
		if c.Watch {
			continue
		}
		if s.Lost != "" {
			return &daemon.ExitError{Code: daemon.ExitPromise, Err: errors.New(s.Lost)}
		}
		return nil
	}
}

func (c *statusCommand) print(out daemon.Output, s *status.Status) error {
	if c.JSON {
		return json.NewEncoder(out.Stdout).Encode(s)
	}
	_, err := s.WriteTo(out.Stdout)
	if err == nil && c.Watch {
		_, err = fmt.Fprintln(out.Stdout)
	}
	return err
}
