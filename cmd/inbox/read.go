package main

import (
	"context"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

type listCommand struct {
	Limit int   `help:"Most letters to list; 0 lists all." default:"100"`
	After int64 `help:"List those behind this id." default:"0"`
	JSON  bool  `name:"json" help:"One JSON object a line."`

	filterFlags   `embed:""`
	postgresFlags `embed:""`
}

// Run lists page after page, so that memory does not grow with the list.
func (c *listCommand) Run(ctx context.Context, out daemon.Output) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	if c.Limit < 0 || c.After < 0 {
		return usage("--limit and --after count from 0; see inbox dead list --help")
	}
	return c.withLetters(ctx, func(letters inbox.DeadLetters) error {
		t, listed, after := newTable(out.Stdout), 0, c.After
		for {
			limit := inbox.DefaultLimit
			if c.Limit > 0 {
				limit = min(limit, c.Limit-listed)
			}
			page, err := letters.List(ctx, filter, limit, after)
			if err != nil {
				return err
			}
			for i := range page.Letters {
				if !c.JSON {
					t.add(&page.Letters[i])
				} else if err := writeJSON(out.Stdout, brief(&page.Letters[i])); err != nil {
					return fmt.Errorf("write letters: %w", err)
				}
			}
			listed += len(page.Letters)
			if after = page.Next; after == 0 || listed == c.Limit {
				break
			}
		}
		if listed == 0 {
			fmt.Fprintln(out.Stderr, "no dead letters")
			return nil
		}
		if !c.JSON {
			if err := t.w.Flush(); err != nil {
				return fmt.Errorf("write letters: %w", err)
			}
		}
		if after != 0 {
			fmt.Fprintf(out.Stderr, "there are more: go on with --after %d\n", after)
		}
		return nil
	})
}

type showCommand struct {
	ID      int64 `arg:"" name:"id" help:"The letter's id."`
	Payload bool  `help:"Write the payload and nothing else, byte for byte."`
	JSON    bool  `name:"json" help:"One JSON object."`

	postgresFlags `embed:""`
}

// Run shows the letter.
func (c *showCommand) Run(ctx context.Context, out daemon.Output) error {
	if c.Payload && c.JSON {
		return usage("--payload and --json do not go together")
	}
	return c.withLetters(ctx, func(letters inbox.DeadLetters) error {
		l, err := letters.Get(ctx, c.ID)
		if err != nil {
			return err
		}
		switch {
		case c.Payload:
			_, err = out.Stdout.Write(l.Payload)
		case c.JSON:
			err = writeJSON(out.Stdout, full(&l))
		default:
			err = show(out.Stdout, &l)
		}
		if err != nil {
			return fmt.Errorf("write letter: %w", err)
		}
		return nil
	})
}

func show(w io.Writer, l *inbox.Letter) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, oneLine(fmt.Sprintf(format, args...))) // an error comes again with the last line
	}
	line("id", "%d", l.ID)
	line("group", "%s", l.Group)
	line("key", "%s, %d waiting behind", l.OrderingKey, l.Behind)
	line("state", "%s, %d attempts, since %s", l.State, l.Attempts, l.FailedAt.UTC().Format(time.RFC3339))
	if !l.RedriveAt.IsZero() {
		line("redrive", "at %s", l.RedriveAt.UTC().Format(time.RFC3339Nano))
	}
	if !l.EditedAt.IsZero() {
		line("edited", "at %s", l.EditedAt.UTC().Format(time.RFC3339))
	}
	line("event", "%s %s of %s", l.Type, l.EventID, l.EventTime.UTC().Format(time.RFC3339Nano))
	line("record", "%s, partition %d, offset %d, key %s", l.Topic, l.Partition, l.Offset, printable(l.Key))
	if l.Error != "" {
		line("error", "%s", l.Error)
	}
	for _, h := range l.Headers {
		line("header", "%s: %s", h.Key, printable(h.Value))
	}
	if !l.EditedAt.IsZero() {
		line("original", "%s", printable(l.OriginalPayload))
	}
	_, err := fmt.Fprintf(w, "%-10s %s\n", "payload", printable(l.Payload))
	return err
}

// printable gives bytes in one line of a terminal.
func printable(b []byte) string {
	switch {
	case b == nil:
		return "(none)"
	case utf8.Valid(b) && oneLine(string(b)) == string(b):
		return string(b)
	default:
		return fmt.Sprintf("%q", b)
	}
}
