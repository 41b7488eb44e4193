package relay_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay"
)

// TestSpansReachFromCommitToAcknowledgement publishes an event whose writer is
// traced, one whose writer's trace is not sampled, and one without a trace, in
// both ways to deliver and of rows and messages.
func TestSpansReachFromCommitToAcknowledgement(t *testing.T) {
	const (
		sampled   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		unsampled = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
		state     = "vendor=opaque"
	)
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		for mode, writer := range map[string]outbox.Writer{"rows": {}, "messages": {Mode: outbox.WAL}} {
			t.Run(string(delivery)+" "+mode, func(t *testing.T) {
				f := newFixture(t)
				exporter := tracetest.NewInMemoryExporter()
				provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
				f.config.Delivery, f.config.Tracer = delivery, provider
				stop := f.start(t)
				var before, after time.Time
				err := pgx.BeginFunc(t.Context(), f.conn, func(tx pgx.Tx) error {
					for i, traceparent := range []string{sampled, unsampled, ""} {
						e := f.event("42", int64(i+1))
						if traceparent != "" {
							e.Headers = map[string]string{outbox.HeaderTraceparent: traceparent, outbox.HeaderTracestate: state}
						}
						if err := writer.Write(t.Context(), tx, e); err != nil {
							return err
						}
					}
					return tx.QueryRow(t.Context(), `select clock_timestamp()`).Scan(&before)
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := f.conn.QueryRow(t.Context(), `select clock_timestamp()`).Scan(&after); err != nil {
					t.Fatal(err)
				}
				records := f.records(t, 3)
				devstacktest.Wait(t, "two spans", 10*time.Second, func() bool { return len(exporter.GetSpans()) >= 2 })
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				for i, want := range []string{sampled, unsampled, ""} {
					if got := headerOf(records[i], outbox.HeaderTraceparent); got != want {
						t.Errorf("record %d has the traceparent %q, want the writer's, %q", i, got, want)
					}
				}
				spans := exporter.GetSpans()
				if len(spans) != 2 {
					t.Fatalf("%d spans, want one for the sampled and one for the untraced event", len(spans))
				}
				of, alone := spans[0], spans[1]
				if alone.Parent.IsValid() {
					of, alone = alone, of
				}
				if got := "00-" + of.Parent.TraceID().String() + "-" + of.Parent.SpanID().String() + "-01"; got != sampled || !of.Parent.IsRemote() || of.Parent.TraceState().String() != state {
					t.Errorf("the parent is %s with state %q, want the writer's span", got, of.Parent.TraceState())
				}
				if len(of.Links) != 1 || of.Links[0].SpanContext.SpanID() != of.Parent.SpanID() || of.SpanContext.TraceID() != of.Parent.TraceID() {
					t.Errorf("links %v, want one to the writer's span", of.Links)
				}
				if len(alone.Links) != 0 || alone.Parent.IsValid() {
					t.Errorf("the event without a trace has parent %v and links %v", alone.Parent, alone.Links)
				}
				for _, span := range spans {
					if span.Name != "send "+f.topic || span.SpanKind != trace.SpanKindProducer {
						t.Errorf("span %q of kind %v", span.Name, span.SpanKind)
					}
					if span.StartTime.Before(before.Add(-time.Microsecond)) || span.StartTime.After(after) {
						t.Errorf("the span begins at %v, the commit was between %v and %v", span.StartTime, before, after)
					}
					if span.EndTime.Before(span.StartTime) || span.EndTime.After(time.Now()) {
						t.Errorf("the span of %v ends at %v", span.StartTime, span.EndTime)
					}
				}
				if err := provider.Shutdown(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// headerOf gives the value of the only header of that name; empty: there is
// none, or more than one.
func headerOf(r *kgo.Record, name string) (value string) {
	n := 0
	for _, h := range r.Headers {
		if h.Key == name {
			value = string(h.Value)
			n++
		}
	}
	if n != 1 {
		return ""
	}
	return value
}
