package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

type editCommand struct {
	ID           int64    `arg:"" name:"id" help:"The letter's id."`
	Payload      string   `help:"File with the new payload; - reads standard input." placeholder:"FILE"`
	Header       []string `help:"Set a header; may be repeated." placeholder:"NAME=VALUE" sep:"none"`
	RemoveHeader []string `help:"Remove a header; may be repeated." placeholder:"NAME" sep:"none"`
	JSON         bool     `name:"json" help:"The letter afterwards as one JSON object."`

	postgresFlags `embed:""`
}

// Run edits the letter and shows it.
func (c *editCommand) Run(ctx context.Context, out daemon.Output) error {
	edit := inbox.Edit{RemoveHeaders: c.RemoveHeader}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return usage(fmt.Sprintf("--header %q: give name=value", h))
		}
		edit.SetHeaders = append(edit.SetHeaders, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	if c.Payload == "" && len(c.Header)+len(c.RemoveHeader) == 0 {
		return usage("nothing to change: give --payload, --header or --remove-header; see inbox dead edit --help")
	}
	if c.Payload != "" {
		payload, err := readFile(c.Payload)
		if err != nil {
			return fmt.Errorf("read the payload: %w", err)
		}
		edit.Payload = payload
	}
	return c.withLetters(ctx, func(letters inbox.DeadLetters) error {
		l, err := letters.Edit(ctx, c.ID, edit)
		if err != nil {
			return err
		}
		if c.JSON {
			err = writeJSON(out.Stdout, full(&l))
		} else if err = show(out.Stdout, &l); err == nil {
			_, err = fmt.Fprintf(out.Stderr, "edited; have it handled with: inbox dead redrive --id %d\n", c.ID)
		}
		if err != nil {
			return fmt.Errorf("write letter: %w", err)
		}
		return nil
	})
}

// readFile gives an empty slice, not nil, for an empty file.
func readFile(name string) ([]byte, error) {
	if name != "-" {
		return os.ReadFile(name)
	}
	b, err := io.ReadAll(os.Stdin)
	return slices.Concat([]byte{}, b), err
}

type redriveCommand struct {
	Rate   float64 `help:"Letters that begin in a second; what waits behind them is not counted. 0: all at once." default:"0"`
	Limit  int     `help:"Most letters to redrive, oldest first; what waits behind them is not counted. 0: all." default:"0"`
	All    bool    `help:"Redrive everything, of --group where it is given."`
	DryRun bool    `help:"Tell what would be redriven, and change nothing."`
	JSON   bool    `name:"json" help:"One JSON object."`

	filterFlags   `embed:""`
	postgresFlags `embed:""`
}

// redriven is the output of redrive --json.
type redriven struct {
	DryRun  bool     `json:"dryRun"`
	Matched int      `json:"matched"`
	Count   int      `json:"count"`
	Behind  int      `json:"behind"`
	Letters []letter `json:"letters"`
}

// Run schedules letters. It fails when one that was named is not among them.
func (c *redriveCommand) Run(ctx context.Context, out daemon.Output) error {
	filter, err := c.chosen(c.All, "redrive")
	if err != nil {
		return err
	}
	if c.Rate < 0 || c.Limit < 0 {
		return usage("--rate and --limit count from 0; see inbox dead redrive --help")
	}
	return c.withLetters(ctx, func(letters inbox.DeadLetters) error {
		done, err := letters.Redrive(ctx, inbox.Redrive{Filter: filter, Rate: c.Rate, Limit: c.Limit, DryRun: c.DryRun})
		if err != nil {
			return err
		}
		if c.JSON {
			err = writeJSON(out.Stdout, redriven{c.DryRun, done.Matched, len(done.Letters), done.Behind, briefs(done.Letters)})
		} else {
			err = c.tell(out, &done)
		}
		if err != nil {
			return fmt.Errorf("write letters: %w", err)
		}
		return missing(ctx, letters, c.ID, done.Letters)
	})
}

func (c *redriveCommand) tell(out daemon.Output, done *inbox.Redriven) error {
	if len(done.Letters) > 0 {
		t := newTable(out.Stdout)
		for i := range done.Letters {
			t.add(&done.Letters[i])
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
	}
	verb := "redriving"
	if c.DryRun {
		verb = "would redrive"
	}
	_, err := fmt.Fprintf(out.Stderr, "%s %d letters and %d behind them; the filter selects %d\n", verb, len(done.Letters), done.Behind, done.Matched)
	switch {
	case err != nil:
	case len(done.Letters) == 0 && done.Matched > 0:
		_, err = fmt.Fprintln(out.Stderr, "those wait behind others of their keys, or are being redriven: see inbox dead list --state dead")
	case len(done.Letters) > 0 && !c.DryRun:
		_, err = fmt.Fprintln(out.Stderr, "the running service handles them; what fails again is back in: inbox dead list --state dead")
	}
	return err
}

// missing says of each letter that was named and is not redriven why.
func missing(ctx context.Context, letters inbox.DeadLetters, ids []int64, done []inbox.Letter) error {
	var problems []error
	for _, id := range ids {
		if slices.ContainsFunc(done, func(l inbox.Letter) bool { return l.ID == id }) {
			continue
		}
		l, err := letters.Get(ctx, id)
		switch {
		case err != nil:
			problems = append(problems, err)
		case !l.RedriveAt.IsZero():
			problems = append(problems, fmt.Errorf("letter %d is being redriven already, at %s", id, l.RedriveAt.UTC().Format(time.RFC3339)))
		case l.State == inbox.StateWaiting:
			problems = append(problems, fmt.Errorf("letter %d waits behind another one and follows it: redrive that, see inbox dead list --state dead --key %q", id, l.OrderingKey))
		default:
			problems = append(problems, fmt.Errorf("letter %d does not match the other filters, or is over the limit", id))
		}
	}
	return errors.Join(problems...)
}

type dropCommand struct {
	Reason string `help:"Who gives them up and why; kept with each event in column dropped of table inbox." required:""`
	Limit  int    `help:"Most letters to drop, oldest first. 0: all." default:"0"`
	All    bool   `help:"Drop everything, of --group where it is given."`
	DryRun bool   `help:"Tell what would be dropped, and change nothing."`
	JSON   bool   `name:"json" help:"One JSON object, with headers and payloads: keep it, they are nowhere else afterwards."`

	filterFlags   `embed:""`
	postgresFlags `embed:""`
}

// dropped is the output of drop --json.
type dropped struct {
	DryRun  bool     `json:"dryRun"`
	Count   int      `json:"count"`
	Letters []letter `json:"letters"`
}

// Run drops letters. What was dropped before an error is told as well.
func (c *dropCommand) Run(ctx context.Context, out daemon.Output) error {
	filter, err := c.chosen(c.All, "drop")
	if err != nil {
		return err
	}
	if strings.TrimSpace(c.Reason) == "" || c.Limit < 0 {
		return usage("--reason must say something, and --limit counts from 0; see inbox dead drop --help")
	}
	return c.withLetters(ctx, func(letters inbox.DeadLetters) error {
		list, failed := letters.Drop(ctx, inbox.Drop{Filter: filter, All: c.All, Reason: c.Reason, Limit: c.Limit, DryRun: c.DryRun})
		if c.JSON {
			done := dropped{DryRun: c.DryRun, Count: len(list), Letters: make([]letter, len(list))}
			for i := range list {
				done.Letters[i] = full(&list[i])
			}
			err = writeJSON(out.Stdout, done)
		} else {
			err = c.tell(out, list)
		}
		if err != nil {
			err = fmt.Errorf("write letters: %w", err)
		}
		if failed == nil && len(list) < len(c.ID) && c.Limit == 0 {
			failed = fmt.Errorf("%d of the %d letters named are not there, or do not match the other filters: see inbox dead list", len(c.ID)-len(list), len(c.ID))
		}
		return errors.Join(failed, err)
	})
}

func (c *dropCommand) tell(out daemon.Output, list []inbox.Letter) error {
	verb := "dropped"
	if c.DryRun {
		verb = "would drop"
	}
	if len(list) > 0 {
		t := newTable(out.Stdout)
		for i := range list {
			t.add(&list[i])
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out.Stderr, "%s %d letters\n", verb, len(list))
	return err
}
