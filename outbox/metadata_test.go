package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/outbox"
)

// tracer is a hook that sets headers and keeps what it sees.
type tracer struct {
	headers map[string]string
	seen    []outbox.WriteInfo
}

func (h *tracer) OnHeaders(_ context.Context, _ *outbox.Event, set func(name, value string)) {
	for name, value := range h.headers {
		set(name, value)
	}
}

func (h *tracer) OnWrite(_ context.Context, w outbox.WriteInfo) { h.seen = append(h.seen, w) }

// headers gives those with which w writes e.
func headers(t *testing.T, ctx context.Context, w outbox.Writer, e outbox.Event) map[string]string { //nolint:revive // a test helper begins with t
	t.Helper()
	_, args, err := w.Statement(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if text := args[7].(string); text != "" {
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("headers %s: %v", text, err)
		}
	}
	return got
}

// TestWhoWinsAHeader: the event, then the last hook, then the context.
func TestWhoWinsAHeader(t *testing.T) {
	t.Parallel()
	ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{UserID: "context", RequestID: "context", CorrelationID: "context"})
	first := &tracer{headers: map[string]string{"userId": "first", "requestId": "first", "traceparent": "first"}}
	last := &tracer{headers: map[string]string{"userId": "last", "traceparent": "last"}}
	e := valid()
	e.Headers = map[string]string{"userId": "event"}
	got := headers(t, ctx, outbox.Writer{Hooks: []outbox.Hook{first, last}}, e)
	want := map[string]string{"userId": "event", "requestId": "first", "correlationId": "context", "traceparent": "last"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMetadataAddsUp(t *testing.T) {
	t.Parallel()
	ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{UserID: "u", RequestID: "r"})
	inner := outbox.WithMetadata(ctx, outbox.Metadata{RequestID: "r2", Tracestate: "s"})
	if diff := cmp.Diff(outbox.Metadata{UserID: "u", RequestID: "r2", Tracestate: "s"}, outbox.MetadataFrom(inner)); diff != "" {
		t.Errorf("inner, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(outbox.Metadata{UserID: "u", RequestID: "r"}, outbox.MetadataFrom(ctx)); diff != "" {
		t.Errorf("outer is changed, -want +got:\n%s", diff)
	}
}

// TestMetadataIsChecked: what a client sent may not break a record later.
func TestMetadataIsChecked(t *testing.T) {
	t.Parallel()
	ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{UserID: "a\x00b"})
	_, _, err := outbox.Writer{}.Statement(ctx, valid())
	var refused *outbox.EventError
	if !errors.As(err, &refused) || refused.Field != "Headers[userId]" {
		t.Errorf("Statement: %v, want an EventError for Headers[userId]", err)
	}
}

func TestHooksSeeEveryWrite(t *testing.T) {
	t.Parallel()
	hook := new(tracer)
	w := outbox.Writer{Hooks: []outbox.Hook{hook}}
	e := valid()
	if _, _, err := w.Statement(t.Context(), e, e); err != nil {
		t.Fatal(err)
	}
	bad := e
	bad.Type = ""
	_, _, refused := w.Statement(t.Context(), bad)
	if len(hook.seen) != 2 {
		t.Fatalf("%d calls seen, want 2", len(hook.seen))
	}
	// user, 42, UserCreated, {}, requestId, r1: 4+2+11+2+9+2.
	if got := hook.seen[0]; got.Events != 2 || got.Bytes != 60 || !got.Queued || got.Err != nil {
		t.Errorf("the write was seen as %+v", got)
	}
	if got := hook.seen[1]; got.Err == nil || !errors.Is(got.Err, refused) {
		t.Errorf("the refused write was seen with error %v, want %v", got.Err, refused)
	}
}

func TestRefusedWriters(t *testing.T) {
	t.Parallel()
	tests := map[string]outbox.Writer{
		"Writer.Mode 9":          {Mode: 9},
		"Writer.MaxBytes -1":     {MaxBytes: -1},
		"Writer.Hooks[0] string": {Hooks: []outbox.Hook{"x"}},
	}
	for want, w := range tests {
		if _, _, err := w.Statement(t.Context(), valid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Statement: %v, want an error that names %q", err, want)
		}
	}
}

func TestTopicMaxBytes(t *testing.T) {
	t.Parallel()
	w := outbox.Writer{MaxBytes: 20, TopicMaxBytes: map[string]int{"large": 2000}}
	e := valid()
	if _, _, err := w.Statement(t.Context(), e); err == nil {
		t.Error("an event over MaxBytes was taken")
	}
	e.Topic = "large"
	if _, _, err := w.Statement(t.Context(), e); err != nil {
		t.Errorf("an event below its topic's limit: %v", err)
	}
}
