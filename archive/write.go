package archive

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// Collections of the archive's database.
const (
	eventsCollection     = "events"
	quarantineCollection = "quarantine"
)

// A writer puts records into MongoDB. One goroutine uses it.
type writer struct {
	db      *mongo.Database
	cfg     Config
	metrics *metrics
	log     *slog.Logger

	maxDocuments int // that the server takes in one command

	enc    encoder
	events command
	again  command // what is left of events after an attempt
	held   command // for quarantine
}

// write puts records into MongoDB, and returns nil only once each is there to
// stay: as an event, as an event that was there before, or in quarantine. It
// tries until ctx ends, or MongoDB refuses for a lasting reason; records may
// then be there or not, and writing them again does no harm.
func (w *writer) write(ctx context.Context, records []*kgo.Record) error {
	now := time.Now()
	w.events.begin(eventsCollection)
	w.held.begin(quarantineCollection)
	for _, r := range records {
		event, err := cloudevent.Decode(r)
		if err == nil {
			err = w.addEvent(&w.events, &event, r, now, true)
		}
		if err != nil {
			if err := w.hold(r, reasonNotAnEvent, err.Error(), now); err != nil {
				return err
			}
		}
		if len(w.events.buf) >= w.cfg.BatchBytes || len(w.events.items) >= w.maxDocuments {
			if err := w.flushEvents(ctx); err != nil {
				return err
			}
		}
		if len(w.held.buf) >= w.cfg.BatchBytes || len(w.held.items) >= w.maxDocuments {
			if err := w.flushHeld(ctx); err != nil {
				return err
			}
		}
	}
	if err := w.flushEvents(ctx); err != nil {
		return err
	}
	return w.flushHeld(ctx)
}

// addEvent appends the event's document to c.
func (w *writer) addEvent(c *command, e *cloudevent.Event, r *kgo.Record, now time.Time, decoded bool) error {
	before := len(c.buf)
	c.open()
	start := len(c.buf)
	b, hashAt, err := w.enc.appendDocument(c.buf, e, r, now, decoded)
	if err != nil {
		c.buf = c.buf[:before]
		return err
	}
	c.buf = b
	c.items = append(c.items, item{record: r, id: e.ID, start: start, end: len(b), hashAt: hashAt})
	return nil
}

// flushEvents writes w.events and begins it anew. Documents that conflict with
// history go to w.held.
func (w *writer) flushEvents(ctx context.Context) error {
	if len(w.events.items) == 0 {
		return nil
	}
	written := len(w.events.items)
	current, next := &w.events, &w.again
	for attempt := 0; len(current.items) > 0; attempt++ {
		refused, repeated, err := w.insert(ctx, current, attempt > 0)
		if err != nil {
			return fmt.Errorf("write %d events: %w", len(current.items), err)
		}
		next.begin(eventsCollection)
		verdicts, err := w.judge(ctx, current, refused, repeated || attempt > 0)
		if err != nil {
			return err
		}
		for i := range verdicts {
			v := &verdicts[i]
			it := &current.items[v.index]
			switch v.kind {
			case verdictWritten:
			case verdictRedelivered:
				written--
				w.metrics.redeliveries.WithLabelValues(v.detail).Inc()
			case verdictConflict:
				written--
				if err := w.hold(it.record, v.reason, v.detail, time.Now()); err != nil {
					return err
				}
			case verdictAgain:
				if err := w.addAgain(next, current, it, v); err != nil {
					return err
				}
			}
		}
		current, next = next, current
	}
	w.metrics.written.Add(float64(written))
	w.events.begin(eventsCollection)
	return nil
}

// addAgain queues a refused document for another attempt: as it was, or
// without the eventData that the server may have refused.
func (w *writer) addAgain(next, current *command, it *item, v *verdict) error {
	if v.reason == "" {
		next.copyOf(current, *it)
		return nil
	}
	event, err := cloudevent.Decode(it.record)
	if err != nil {
		return err // it was decoded before
	}
	if err := w.addEvent(next, &event, it.record, time.Now(), false); err != nil {
		return err
	}
	next.items[len(next.items)-1].reason = v.reason
	return nil
}
