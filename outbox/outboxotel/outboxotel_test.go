package outboxotel_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-048de892/walpost/outbox"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-048de892/walpost/outbox/outboxotel"
)

func event() outbox.Event {
	return outbox.Event{Topic: "user.created", AggregateType: "user", AggregateID: "42", Type: "UserCreated"}
}

// TestTheTraceGoesOn writes an event in a span and handles it in another.
func TestTheTraceGoesOn(t *testing.T) {
	t.Parallel()
	tracer := sdktrace.NewTracerProvider().Tracer("test")
	writing, span := tracer.Start(t.Context(), "write")
	defer span.End()

	w := outbox.Writer{Hooks: []outbox.Hook{new(outboxotel.Hook)}}
	_, args, err := w.Statement(writing, event())
	if err != nil {
		t.Fatal(err)
	}
	var headers map[string]string
	if err := json.Unmarshal([]byte(args[7].(string)), &headers); err != nil {
		t.Fatal(err)
	}
	sc := span.SpanContext()
	if want := fmt.Sprintf("00-%s-%s-01", sc.TraceID(), sc.SpanID()); headers["traceparent"] != want {
		t.Fatalf("traceparent %q, want %q", headers["traceparent"], want)
	}

	handling := outbox.WithMetadata(t.Context(), outbox.Metadata{Traceparent: headers["traceparent"]})
	_, handler := tracer.Start(outboxotel.Context(handling), "handle")
	defer handler.End()
	read, ok := handler.(sdktrace.ReadOnlySpan)
	if !ok || read.Parent().SpanID() != sc.SpanID() || read.SpanContext().TraceID() != sc.TraceID() || !read.Parent().IsRemote() {
		t.Errorf("the handler's span has parent %v, want the writer's, %v", read.Parent(), sc)
	}
}

// TestWithoutASpan leaves the header to the context's metadata.
func TestWithoutASpan(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{Traceparent: parent})
	w := outbox.Writer{Hooks: []outbox.Hook{new(outboxotel.Hook)}}
	_, args, err := w.Statement(ctx, event())
	if err != nil || !strings.Contains(args[7].(string), parent) {
		t.Errorf("headers %v, %v, want %s in them", args, err, parent)
	}
	if trace.SpanContextFromContext(outboxotel.Context(t.Context())).IsValid() {
		t.Error("a context without metadata got a span")
	}
}

func TestWritesAreMeasured(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	hook, err := outboxotel.New(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	w := outbox.Writer{Mode: outbox.Packed, Hooks: []outbox.Hook{hook}}
	if _, _, err := w.Statement(t.Context(), event(), event()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Statement(t.Context(), outbox.Event{}); err == nil {
		t.Fatal("an empty event was taken")
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int64)
	for _, m := range got.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				mode, _ := p.Attributes.Value("mode")
				outcome, _ := p.Attributes.Value("outcome")
				counts[m.Name+" "+mode.AsString()+" "+outcome.AsString()] = p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				counts[m.Name] += int64(p.Count)
			}
		}
	}
	want := map[string]int64{
		"walpost.outbox.events packed ok": 2, "walpost.outbox.events packed refused": 1,
		"walpost.outbox.bytes packed ok": 34, "walpost.outbox.bytes packed refused": 0,
		"walpost.outbox.write.duration": 2,
	}
	for name, n := range want {
		if counts[name] != n {
			t.Errorf("%s is %d, want %d", name, counts[name], n)
		}
	}
}
