package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// attemptTimeout bounds one attempt. A majority that cannot be reached has no
// other end.
const attemptTimeout = 30 * time.Second

// firstPause is how long the first failed attempt waits; every further one
// doubles it up to [Config.RetryEvery].
const firstPause = 20 * time.Millisecond

// passingCodes are MongoDB's codes for errors that pass: a primary steps down,
// a node shuts down or recovers, a limit of time or space is reached.
var passingCodes = []int{
	6, 7, 24, 46, 50, 63, 64, 89, 91, 100, 112, 133, 134, 150, 175, 189, 202, 234, 262, 317, 358, 384, 402, 462,
	9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436, 14031,
}

// insert runs the insert command until the server has dealt with every
// document, and gives those it refused. repeated says that it took more than
// one attempt, so that an earlier one may have stored some of them.
//
// The driver retries no command that it is given as such; the documents' ids
// make it safe to do so.
func (w *writer) insert(ctx context.Context, c *command, again bool) (refused []mongo.WriteError, repeated bool, err error) {
	doc := c.finish()
	attempts := 0
	start := time.Now()
	err = w.retry(ctx, "insert", func(ctx context.Context) error {
		attempts++
		refused = nil
		_, err := w.db.RunCommand(ctx, doc).Raw()
		exception, ok := errors.AsType[mongo.WriteException](err)
		if !ok {
			return err
		}
		// Refused documents are the answer, but only once the others are safe.
		if exception.WriteConcernError != nil {
			return exception.WriteConcernError
		}
		refused = exception.WriteErrors
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if !again {
		w.metrics.batches.Observe(float64(len(c.items)))
	}
	w.metrics.writeSeconds.Observe(time.Since(start).Seconds())
	return refused, attempts > 1, nil
}

// retry calls attempt until it succeeds, ctx ends, or it gives an error that
// does not pass.
func (w *writer) retry(ctx context.Context, what string, attempt func(context.Context) error) error {
	pause := firstPause
	for {
		try, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := attempt(try)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if lasting(err) {
			return err
		}
		w.metrics.failures.Inc()
		w.log.WarnContext(ctx, "MongoDB fails; trying again",
			slog.String("operation", what), slog.Duration("pause", pause), slog.Any("error", err))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, w.cfg.RetryEvery)
	}
}

// lasting reports whether an error will come again however often the same is
// tried. A server's answer is, unless it says otherwise; a failure to get one
// never is.
func lasting(err error) bool {
	if e, ok := errors.AsType[*mongo.WriteConcernError](err); ok {
		return !slices.Contains(passingCodes, e.Code)
	}
	e, ok := errors.AsType[mongo.CommandError](err)
	if !ok {
		return false
	}
	return !e.HasErrorLabel("RetryableWriteError") && !e.HasErrorLabel("NetworkError") &&
		!e.HasErrorLabel("SystemOverloadedError") &&
		!mongo.IsNetworkError(err) && !mongo.IsTimeout(err) &&
		!slices.Contains(passingCodes, int(e.Code))
}

// flushHeld writes w.held and begins it anew. A record that is in quarantine
// already stays as it is there.
func (w *writer) flushHeld(ctx context.Context) error {
	if len(w.held.items) == 0 {
		return nil
	}
	refused, _, err := w.insert(ctx, &w.held, true)
	if err != nil {
		return fmt.Errorf("write %d records to quarantine: %w", len(w.held.items), err)
	}
	known := make(map[int]bool, len(refused))
	for i := range refused {
		if e := &refused[i]; e.Code != codeDuplicateKey {
			return fmt.Errorf("MongoDB refuses quarantine of %s: %w", w.held.items[e.Index].id, e)
		}
		known[refused[i].Index] = true
	}
	for i := range w.held.items {
		if it := &w.held.items[i]; !known[i] {
			w.metrics.quarantined.WithLabelValues(it.reason).Inc()
			w.log.ErrorContext(ctx, "record in quarantine", slog.String("id", it.id), slog.String("reason", it.reason))
		}
	}
	w.held.begin(quarantineCollection)
	return nil
}
