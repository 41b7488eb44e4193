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
type IncompleteError struct {
	Missing []string
	Logs    string // folder of the programs' logs; "" where they are gone
}

func (e *IncompleteError) Error() string {
	var b strings.Builder
	b.WriteString("the round is incomplete")
	for _, m := range e.Missing {
		b.WriteString("\n- " + m)
	}
	if e.Logs != "" {
		b.WriteString("\nlogs: " + e.Logs)
	}
	return b.String()
}

// Once plays one scripted round and stops everything again. The summary is
// never nil and tells as much as is known; where it is not OK, the error is an
// [*IncompleteError].
func (d *Demo) Once(ctx context.Context) (*Summary, error) {
	summary := &Summary{Missing: []string{}, Users: []Replay{}}
	played := false
	err := d.run(ctx, summary.made, func(ctx context.Context, s *stack) (err error) {
		played, err = d.round(ctx, s, summary)
		return err
	})
	incomplete := new(IncompleteError)
	if failed, ok := errors.AsType[*failure](err); ok {
		err, incomplete.Logs = failed.err, failed.logs
	}
	switch _, known := errors.AsType[*IncompleteError](err); {
	case known: // round has said what
	case err != nil:
		summary.Missing = append(summary.Missing, err.Error())
	case !played:
		summary.Missing = append(summary.Missing, "the round was stopped before its end")
	}
	if len(summary.Missing) > 0 {
		incomplete.Missing = summary.Missing
		return summary, incomplete
	}
	summary.OK = true
	return summary, nil
}

// round plays the script and fills in summary. What did not arrive in time is
// put there as missing, and the error is then an [*IncompleteError]; another
// error says that the round could not go on. played is false when ctx ended.
func (d *Demo) round(ctx context.Context, s *stack, summary *Summary) (played bool, err error) {
	summary.ready(s)
	limited, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	client := newClient(s.at)
	defer client.close()
	summary.Requests, err = (&round{client: client}).play(limited)
	if ctx.Err() != nil {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("play the round: %w", err)
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
		return false, nil
	}
	if _, ok := errors.AsType[*IncompleteError](late); late != nil && !ok {
		return false, late
	}
	// What arrived can be looked at even when time is up.
	reading, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := summary.count(reading, s, all); err != nil {
		return false, err
	}
	summary.Missing = append(summary.Missing, missing(all)...)
	if err := summary.compare(reading, s, client); err != nil {
		return false, err
	}
	if len(summary.Missing) > 0 {
		return true, &IncompleteError{Missing: summary.Missing}
	}
	return true, nil
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
