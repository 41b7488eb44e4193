package inbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// Received is an event as its handler gets it.
type Received[T any] struct {
	// Event holds the attributes, headers and the payload as they came. Its
	// Data belongs to the inbox: the handler must not change it.
	cloudevent.Event

	// Value is the payload, decoded.
	Value T

	Topic     string
	Partition int32
	Offset    int64

	// Attempt is how often the event's handler is called, this call included.
	Attempt int
}

// A handler decodes an event and calls what the user gave. tx is nil without
// a Pool.
type handler func(ctx context.Context, tx pgx.Tx, e *event, attempt int) error

// Handle has fn called for the events of type t.Name. Call it before
// [Inbox.Run]; a type has one handler. t.Topic is consumed where
// [Config.Topics] names none.
//
// fn's work in tx and the mark that the event was handled are committed
// together, once fn has returned nil: so the effect in this database is there
// exactly once, however often the event is delivered. What fn does elsewhere
// may happen again. fn must neither commit nor roll back tx; savepoints
// (tx.Begin) are its own.
//
// Events of one ordering key (aggregate type and id; topic and record key
// where there is no aggregate) are handled one after the other in the order in
// which they come, those of different keys at once, up to
// [Config.Concurrency]; fn must be safe for that.
//
// An error or a panic of fn rolls tx back, and fn is called again after a
// wait: see [Config.MaxAttempts] and [Permanent].
//
// ctx carries the event's [outbox.Metadata], so that events which fn writes
// name this one as their cause. It ends after [Config.Timeout], and before
// that only when the process or the partition must go and its grace is over.
func Handle[T any](in *Inbox, t outbox.Typed[T], fn func(ctx context.Context, tx pgx.Tx, e Received[T]) error) error {
	if in.cfg.Pool == nil {
		return fmt.Errorf("handle %s: a transaction needs Config.Pool: set it, or use HandleFunc", t.Name)
	}
	return register(in, t, fn)
}

// HandleFunc is [Handle] for a handler that has no part in the transaction,
// whose effects are elsewhere: it must bring its own idempotence, since the
// event comes again when the process dies between the effect and the mark.
//
// It is the only form without a [Config.Pool]. Then there are no marks and no
// dead letters: every redelivery is handled again, and an event whose handler
// goes on failing after [Config.MaxAttempts] is tried at [Config.MaxBackoff]
// for ever. It is never passed over, and holds up its key; its partition stops
// when [Config.MaxInFlight] records have gathered behind it. [Stats.Held] and
// [HookRetried] tell.
func HandleFunc[T any](in *Inbox, t outbox.Typed[T], fn func(ctx context.Context, e Received[T]) error) error {
	return register(in, t, func(ctx context.Context, _ pgx.Tx, e Received[T]) error { return fn(ctx, e) })
}

func register[T any](in *Inbox, t outbox.Typed[T], fn func(ctx context.Context, tx pgx.Tx, e Received[T]) error) error {
	err := t.Validate()
	if _, ok := in.handlers[t.Name]; ok {
		err = errors.Join(err, errors.New("the type has a handler already"))
	}
	if in.running.Load() {
		err = errors.Join(err, errors.New("Run has begun: handle every type before it"))
	}
	if err != nil {
		return fmt.Errorf("handle %q: %w", t.Name, err)
	}
	in.handlers[t.Name] = func(ctx context.Context, tx pgx.Tx, e *event, attempt int) error {
		version, err := outbox.ParseSchemaVersion(e.Get(outbox.HeaderSchemaVersion))
		if err != nil {
			return Permanent(fmt.Errorf("%w: %w", errUndecodable, err))
		}
		v, err := t.Decode(version, e.Data)
		if err != nil {
			return Permanent(fmt.Errorf("%w: %w", errUndecodable, err))
		}
		return fn(ctx, tx, Received[T]{
			Event: e.Event, Value: v,
			Topic: e.record.Topic, Partition: e.record.Partition, Offset: e.record.Offset, Attempt: attempt,
		})
	}
	in.topics = append(in.topics, t.Topic)
	return nil
}

// metadata makes the events that a handler writes a chain: of one correlation,
// and caused by this event.
func metadata(ctx context.Context, e *event) context.Context {
	m := outbox.Metadata{
		UserID: e.Get(outbox.HeaderUserID), RequestID: e.Get(outbox.HeaderRequestID),
		CorrelationID: e.Get(outbox.HeaderCorrelationID), CausationID: e.ID,
		Traceparent: e.Get(outbox.HeaderTraceparent), Tracestate: e.Get(outbox.HeaderTracestate),
	}
	if m.CorrelationID == "" {
		m.CorrelationID = e.ID
	}
	if m.Traceparent == "" { // of a foreign producer, by the Distributed Tracing extension
		m.Traceparent, m.Tracestate = e.Get("ce_traceparent"), e.Get("ce_tracestate")
	}
	return outbox.WithMetadata(ctx, m)
}
