package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// everything is more events than a round has.
const everything = 10_000

// An IncompleteError says what a round lacked at its end.
type IncompleteError struct{ Missing []string }

func (e *IncompleteError) Error() string {
	var text strings.Builder
	text.WriteString("the round is incomplete")
	for _, m := range e.Missing {
		text.WriteString("\n- " + m)
	}
	return text.String()
}

// Once plays one scripted round and stops everything again. The summary is
// never nil and tells as much as is known; an [*IncompleteError] comes with
// one that says what is missing.
func (d *Demo) Once(ctx context.Context) (*Summary, error) {
	summary := &Summary{Missing: []string{}, Users: []Replay{}}
	played := false
	err := d.run(ctx, func(ctx context.Context, s *stack) error {
		summary.started(s)
		err := d.round(ctx, s, summary)
		played = err == nil
		return err
	})
	switch {
	case err != nil:
		summary.Missing = append(summary.Missing, err.Error())
	case !played:
		summary.Missing = append(summary.Missing, "the round was stopped before its end")
	}
	summary.OK = len(summary.Missing) == 0
	if !summary.OK {
		return summary, &IncompleteError{Missing: summary.Missing}
	}
	return summary, nil
}

// round plays the script and fills in summary; what did not arrive in time
// stands there as missing. An error says that the round could not go on.
func (d *Demo) round(ctx context.Context, s *stack, summary *Summary) (err error) {
	limited, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	client := newClient(s.at)
	defer client.close()
	summary.Requests, err = (&round{client: client}).play(limited)
	if err != nil {
		return fmt.Errorf("play the round: %w", err)
	}
	// All rows are committed by now: each was before its request was answered.
	var all []*passage
	late := poll(limited, func(ctx context.Context) error {
		now, err := s.passages(ctx, everything)
		if err != nil {
			return err
		}
		all = now
		return arrived(now)
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if late != nil {
		if _, ok := errors.AsType[*IncompleteError](late); !ok {
			return late
		}
	}
	// What arrived can be looked at even when time is up.
	reading, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := summary.count(reading, s, all); err != nil {
		return err
	}
	summary.Missing = append(summary.Missing, missing(all)...)
	return summary.compare(reading, s, client)
}

func arrived(all []*passage) error {
	if what := missing(all); len(what) > 0 {
		return &IncompleteError{Missing: what}
	}
	return nil
}

// missing says for each stage which committed events have not come to it.
func missing(all []*passage) []string {
	if len(all) == 0 {
		return []string{"rows committed: none"}
	}
	var unpublished, unarchived []*passage
	for _, p := range all {
		if p.acknowledged.IsZero() {
			unpublished = append(unpublished, p)
		}
		if p.archived.IsZero() {
			unarchived = append(unarchived, p)
		}
	}
	var what []string
	tell := func(stage string, lacking []*passage) {
		if len(lacking) == 0 {
			return
		}
		p := lacking[0]
		what = append(what, fmt.Sprintf("%s: %d of %d committed events are missing, first %s %s of %s",
			stage, len(lacking), len(all), p.eventType, p.id, p.aggregate))
	}
	tell("records published", unpublished)
	tell("documents archived", unarchived)
	return what
}
