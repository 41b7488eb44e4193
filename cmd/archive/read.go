package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/daemon"
)

// An aggregate is written user/42. The id may hold slashes, the type has none.
type aggregate struct{ kind, id string }

// UnmarshalText reads type/id.
func (a *aggregate) UnmarshalText(b []byte) error {
	var ok bool
	if a.kind, a.id, ok = strings.Cut(string(b), "/"); !ok || a.kind == "" || a.id == "" {
		return fmt.Errorf("%q: want type/id, like user/42", b)
	}
	return nil
}

type eventsCommand struct {
	Aggregate   aggregate `help:"The aggregate, as type/id." placeholder:"user/42" required:""`
	FromVersion int64     `help:"Version to begin with." default:"1"`
	Limit       int       `help:"Most events to list; 0 lists all." default:"0"`
	JSON        bool      `help:"One JSON object a line."`

	mongoFlags `embed:""`
}

// Run lists page after page, so that memory does not grow with the history.
func (c *eventsCommand) Run(ctx context.Context, out daemon.Output) error {
	if c.FromVersion < 1 || c.Limit < 0 {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: errors.New("--from-version counts from 1 and --limit from 0; see archive events --help")}
	}
	write, flush := c.writer(out.Stdout)
	return c.withStore(ctx, func(s *archive.Store) error {
		listed, after := 0, ""
		for {
			limit := archive.MaxLimit
			if c.Limit > 0 {
				limit = min(limit, c.Limit-listed)
			}
			page, err := s.Events(ctx, c.Aggregate.kind, c.Aggregate.id, c.FromVersion, limit, after)
			if err != nil {
				return c.hint(err)
			}
			for i := range page.Events {
				if err := write(&page.Events[i]); err != nil {
					return fmt.Errorf("write events: %w", err)
				}
			}
			listed += len(page.Events)
			if after = page.Next; after == "" || listed == c.Limit {
				break
			}
		}
		if listed == 0 {
			return fmt.Errorf("%w of %s/%s from version %d on", archive.ErrNotFound, c.Aggregate.kind, c.Aggregate.id, c.FromVersion)
		}
		return flush()
	})
}

func (c *eventsCommand) writer(w io.Writer) (write func(*archive.Event) error, flush func() error) {
	if c.JSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return func(e *archive.Event) error { return enc.Encode(e) }, func() error { return nil }
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "VERSION\tTYPE\tTIME\tID\tPAYLOAD") // an error comes again with Flush
	return func(e *archive.Event) error {
		_, err := fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\n", e.Version, e.Type, e.Time.Format(time.RFC3339Nano), e.ID, printable(e.Payload))
		return err
	}, table.Flush
}

// printable gives a payload in one line of a terminal's table.
func printable(payload []byte) string {
	if json.Valid(payload) && !strings.ContainsAny(string(payload), "\t\r\n\x1b") {
		return string(payload)
	}
	return fmt.Sprintf("%q", payload)
}

type stateCommand struct {
	Aggregate aggregate `arg:"" help:"The aggregate, as type/id." placeholder:"user/42"`
	Version   int64     `help:"State at this version; default: the last."`
	At        time.Time `help:"State at this time, RFC 3339."`
	JSON      bool      `help:"All that is known as one JSON object; without it, a summary and the state."`

	mongoFlags `embed:""`
}

// Run prints the state.
func (c *stateCommand) Run(ctx context.Context, out daemon.Output) error {
	if c.Version < 0 {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: errors.New("--version counts from 1; see archive state --help")}
	}
	return c.withStore(ctx, func(s *archive.Store) error {
		st, err := s.State(ctx, c.Aggregate.kind, c.Aggregate.id, archive.Until{Version: c.Version, At: c.At})
		if err != nil {
			return c.hint(err)
		}
		if !c.JSON {
			if _, err := fmt.Fprintf(out.Stderr, "%s/%s version %d after %d events, last %s %s at %s\n",
				st.AggregateType, st.AggregateID, st.Version, st.EventCount, st.LastEventType, st.LastEventID, st.UpdatedAt.Format(time.RFC3339Nano)); err != nil {
				return fmt.Errorf("write state: %w", err)
			}
		}
		enc := json.NewEncoder(out.Stdout)
		enc.SetEscapeHTML(false)
		if c.JSON {
			err = enc.Encode(&st)
		} else {
			enc.SetIndent("", "  ")
			err = enc.Encode(st.State)
		}
		if err != nil {
			return fmt.Errorf("write state: %w", err)
		}
		return nil
	})
}
