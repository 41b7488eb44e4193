// Package outboxotel connects package outbox to OpenTelemetry: the trace in
// which an event was written goes on in whoever handles it, and writes are
// measured. It is a module of its own, so that outbox brings no
// OpenTelemetry.
package outboxotel

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-048de892/walpost/outbox"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// A Hook goes into [outbox.Writer.Hooks]. The zero Hook puts the context's
// span into the headers of each event, as W3C Trace Context, and measures
// nothing. It is safe for use by several goroutines.
type Hook struct {
	events   metric.Int64Counter
	bytes    metric.Int64Counter
	duration metric.Float64Histogram
}

var (
	_ outbox.HookHeaders = (*Hook)(nil)
	_ outbox.HookWrite   = (*Hook)(nil)
)

// New gives a Hook that also measures with meter: the counters
// walpost.outbox.events and walpost.outbox.bytes, and the histogram
// walpost.outbox.write.duration in seconds, each by mode and outcome ("ok",
// "refused" for an event that the Writer has refused, "error").
func New(meter metric.Meter) (*Hook, error) {
	var h Hook
	var errs [3]error
	h.events, errs[0] = meter.Int64Counter("walpost.outbox.events", metric.WithUnit("{event}"), metric.WithDescription("Events written to the outbox."))
	h.bytes, errs[1] = meter.Int64Counter("walpost.outbox.bytes", metric.WithUnit("By"), metric.WithDescription("Payloads, names and headers of the events written."))
	h.duration, errs[2] = meter.Float64Histogram("walpost.outbox.write.duration", metric.WithUnit("s"), metric.WithDescription("Time of a call that writes events."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("make the outbox's instruments: %w", err)
	}
	return &h, nil
}

// OnHeaders sets traceparent and tracestate where ctx has a span.
func (h *Hook) OnHeaders(ctx context.Context, _ *outbox.Event, set func(name, value string)) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		propagation.TraceContext{}.Inject(ctx, carrier(set))
	}
}

// OnWrite counts the events of a call.
func (h *Hook) OnWrite(ctx context.Context, w outbox.WriteInfo) {
	if h.events == nil {
		return
	}
	outcome := "ok"
	if refused := (*outbox.EventError)(nil); errors.As(w.Err, &refused) {
		outcome = "refused"
	} else if w.Err != nil {
		outcome = "error"
	}
	set := metric.WithAttributeSet(attribute.NewSet(attribute.String("mode", w.Mode.String()), attribute.String("outcome", outcome)))
	h.events.Add(ctx, int64(w.Events), set)
	h.bytes.Add(ctx, int64(w.Bytes), set)
	h.duration.Record(ctx, w.Duration.Seconds(), set)
}

// Context gives a context whose remote span is the one that [outbox.Metadata]
// in ctx names, as a handler of package inbox gets it: a span started in it
// goes on with the trace in which the event was written.
func Context(ctx context.Context) context.Context {
	m := outbox.MetadataFrom(ctx)
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		outbox.HeaderTraceparent: m.Traceparent, outbox.HeaderTracestate: m.Tracestate,
	})
}

// carrier takes what a propagator sets.
type carrier func(name, value string)

func (c carrier) Set(name, value string) { c(name, value) }
func (carrier) Get(string) string        { return "" }
func (carrier) Keys() []string           { return nil }
