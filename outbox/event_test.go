package outbox_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
)

func valid() outbox.Event {
	return outbox.Event{
		Topic: "user.created", AggregateType: "user", AggregateID: "42", AggregateVersion: 1,
		Type: "UserCreated", Payload: []byte(`{}`), Headers: map[string]string{"requestId": "r1"},
	}
}

func TestRefusedEvents(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*outbox.Event)
		field  string // empty: accepted
	}{
		"valid":                  {change: func(*outbox.Event) {}},
		"empty payload":          {change: func(e *outbox.Event) { e.Payload = nil }},
		"no version":             {change: func(e *outbox.Event) { e.AggregateVersion = 0 }},
		"no headers":             {change: func(e *outbox.Event) { e.Headers = nil }},
		"at the size limit":      {change: func(e *outbox.Event) { e.Headers = nil; e.Payload = make([]byte, outbox.DefaultMaxBytes-17) }},
		"no topic":               {change: func(e *outbox.Event) { e.Topic = "" }, field: "Topic"},
		"topic with a space":     {change: func(e *outbox.Event) { e.Topic = "user created" }, field: "Topic"},
		"topic of dots":          {change: func(e *outbox.Event) { e.Topic = ".." }, field: "Topic"},
		"long topic":             {change: func(e *outbox.Event) { e.Topic = strings.Repeat("t", 250) }, field: "Topic"},
		"no aggregate type":      {change: func(e *outbox.Event) { e.AggregateType = "" }, field: "AggregateType"},
		"aggregate type: slash":  {change: func(e *outbox.Event) { e.AggregateType = "a/b" }, field: "AggregateType"},
		"no aggregate id":        {change: func(e *outbox.Event) { e.AggregateID = "" }, field: "AggregateID"},
		"aggregate id with NUL":  {change: func(e *outbox.Event) { e.AggregateID = "4\x002" }, field: "AggregateID"},
		"negative version":       {change: func(e *outbox.Event) { e.AggregateVersion = -1 }, field: "AggregateVersion"},
		"no type":                {change: func(e *outbox.Event) { e.Type = "" }, field: "Type"},
		"type not UTF-8":         {change: func(e *outbox.Event) { e.Type = "\xff" }, field: "Type"},
		"header of CloudEvents":  {change: func(e *outbox.Event) { e.Headers["ce_id"] = "x" }, field: "Headers[ce_id]"},
		"header with a space":    {change: func(e *outbox.Event) { e.Headers["a b"] = "x" }, field: "Headers[a b]"},
		"header without a name":  {change: func(e *outbox.Event) { e.Headers[""] = "x" }, field: "Headers[]"},
		"header value with NUL":  {change: func(e *outbox.Event) { e.Headers["a"] = "\x00" }, field: "Headers[a]"},
		"header value not UTF-8": {change: func(e *outbox.Event) { e.Headers["a"] = "\xff" }, field: "Headers[a]"},
		"a byte over the limit":  {change: func(e *outbox.Event) { e.Headers = nil; e.Payload = make([]byte, outbox.DefaultMaxBytes-16) }, field: "Payload"},
		"headers count as size":  {change: func(e *outbox.Event) { e.Headers["a"] = strings.Repeat("x", outbox.DefaultMaxBytes) }, field: "Payload"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := valid()
			tt.change(&bad)
			var batch pgx.Batch
			err := outbox.Queue(t.Context(), &batch, valid(), bad)
			if tt.field == "" {
				if err != nil || batch.Len() != 1 {
					t.Fatalf("Queue: %v, %d statements, want one", err, batch.Len())
				}
				return
			}
			var refused *outbox.EventError
			if !errors.As(err, &refused) {
				t.Fatalf("Queue: %v, want an EventError", err)
			}
			if refused.Index != 1 || refused.Field != tt.field || refused.Hint == "" {
				t.Errorf("refused event %d, field %s, hint %q, want event 1, field %s", refused.Index, refused.Field, refused.Hint, tt.field)
			}
			if batch.Len() != 0 {
				t.Errorf("a refused Queue left %d statements in the batch", batch.Len())
			}
		})
	}
}

func TestEveryProblemIsToldAtOnce(t *testing.T) {
	t.Parallel()
	err := outbox.Queue(t.Context(), new(pgx.Batch), outbox.Event{}, valid(), outbox.Event{Topic: "t", AggregateType: "a", AggregateID: "1"})
	for _, want := range []string{"event 0: Topic", "event 0: AggregateType", "event 0: AggregateID", "event 0: Type", "event 2: Type"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not tell %q:\n%v", want, err)
		}
	}
}

func TestNoEventsAreNoStatement(t *testing.T) {
	t.Parallel()
	var batch pgx.Batch
	if err := outbox.Queue(t.Context(), &batch); err != nil || batch.Len() != 0 {
		t.Errorf("Queue of nothing: %v, %d statements", err, batch.Len())
	}
}

// TestChangeRefusesOptions: an option in front of the arguments would be
// counted as one of them.
func TestChangeRefusesOptions(t *testing.T) {
	t.Parallel()
	for _, option := range []any{pgx.NamedArgs{"id": 1}, pgx.QueryExecModeExec, pgx.QueryResultFormats{1}} {
		_, err := outbox.Writer{}.Change(t.Context(), nil, []outbox.Event{valid()}, "update users set id = @id", option)
		if err == nil || !strings.Contains(err.Error(), "number the parameters") {
			t.Errorf("Change with %T: %v", option, err)
		}
		var batch pgx.Batch
		if _, err := (outbox.Writer{}).QueueChange(t.Context(), &batch, []outbox.Event{valid()}, "update users set id = @id", option); err == nil || batch.Len() != 0 {
			t.Errorf("QueueChange with %T: %v, %d statements", option, err, batch.Len())
		}
	}
}
