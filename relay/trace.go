package relay

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// scope names what makes the spans.
const scope = "github.com/seed-048de892/walpost/relay"

// tracing gives spans to records. nil gives none.
type tracing struct {
	tracer trace.Tracer
}

func newTracing(p trace.TracerProvider) *tracing {
	if p == nil {
		return nil
	}
	return &tracing{p.Tracer(scope)}
}

// begin begins the span of r at its commit, as a child of the span that its
// writer named and with a link to it. The record is left as it is, so that its
// consumers go on from the writer's span. nil: there is none to end.
//
// The span's names are those of OpenTelemetry's conventions for messaging.
func (t *tracing) begin(r *kgo.Record, commit time.Time) trace.Span {
	if t == nil {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), carrier{r})
	options := []trace.SpanStartOption{
		trace.WithTimestamp(commit), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(
			attribute.String("messaging.system", "kafka"),
			attribute.String("messaging.operation.name", "send"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", r.Topic),
			attribute.String("messaging.message.id", header(r, cloudevent.HeaderID)),
			attribute.String("messaging.kafka.message.key", string(r.Key)),
			attribute.String("walpost.sequence", header(r, cloudevent.HeaderSequence)),
			attribute.String("walpost.position", header(r, cloudevent.HeaderPosition)),
		),
	}
	if writer := trace.SpanContextFromContext(ctx); writer.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: writer}))
	}
	_, span := t.tracer.Start(ctx, "send "+r.Topic, options...)
	return span
}

// end ends the span of a record that Kafka acknowledged at the time given.
func end(span trace.Span, at time.Time) {
	if span != nil {
		span.End(trace.WithTimestamp(at))
	}
}

// A carrier lets trace contexts be read from a record's headers.
type carrier struct{ r *kgo.Record }

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(key string) string { return header(c.r, key) }

// Set implements [propagation.TextMapCarrier]. It does nothing: the headers are
// the writer's.
func (c carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (c carrier) Keys() []string {
	keys := make([]string, len(c.r.Headers))
	for i, h := range c.r.Headers {
		keys[i] = h.Key
	}
	return keys
}
