package write_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// A bad event is refused by every path, with the same field named.
type bad struct {
	name  string
	field string
	spoil func(*outbox.Event)

	// states are PostgreSQL's own refusals of what is no text or JSON to it,
	// where the event gets there as an argument: no function sees it.
	states []string
}

func badEvents() []bad {
	header := func(name, value string) func(*outbox.Event) {
		return func(e *outbox.Event) { e.Headers = map[string]string{name: value} }
	}
	// A NUL in the text of a statement is an error of the protocol.
	notText, notJSON := []string{"22021", "08P01"}, []string{"22P05"}
	return []bad{
		{"no topic", "Topic", func(e *outbox.Event) { e.Topic = "" }, nil},
		{"topic with a space", "Topic", func(e *outbox.Event) { e.Topic = "a b" }, nil},
		{"topic with a newline behind", "Topic", func(e *outbox.Event) { e.Topic += "\n" }, nil},
		{"topic not ASCII", "Topic", func(e *outbox.Event) { e.Topic = "ü" }, nil},
		{"topic .", "Topic", func(e *outbox.Event) { e.Topic = "." }, nil},
		{"topic ..", "Topic", func(e *outbox.Event) { e.Topic = ".." }, nil},
		{"long topic", "Topic", func(e *outbox.Event) { e.Topic = strings.Repeat("t", 250) }, nil},
		{"no aggregate type", "AggregateType", func(e *outbox.Event) { e.AggregateType = "" }, nil},
		{"aggregate type with a slash", "AggregateType", func(e *outbox.Event) { e.AggregateType = "a/b" }, nil},
		{"aggregate type with a tab", "AggregateType", func(e *outbox.Event) { e.AggregateType = "a\tb" }, nil},
		{"long aggregate type", "AggregateType", func(e *outbox.Event) { e.AggregateType = strings.Repeat("é", 256) + "x" }, nil},
		{"no aggregate id", "AggregateID", func(e *outbox.Event) { e.AggregateID = "" }, nil},
		{"aggregate id with DEL", "AggregateID", func(e *outbox.Event) { e.AggregateID = "a\x7f" }, nil},
		{"aggregate id with U+0080", "AggregateID", func(e *outbox.Event) { e.AggregateID = "a\u0080" }, nil},
		{"aggregate id with U+009F", "AggregateID", func(e *outbox.Event) { e.AggregateID = "\u009fa" }, nil},
		{"aggregate id with NUL", "AggregateID", func(e *outbox.Event) { e.AggregateID = "4\x002" }, notText},
		{"long aggregate id", "AggregateID", func(e *outbox.Event) { e.AggregateID = strings.Repeat("i", 513) }, nil},
		{"negative version", "AggregateVersion", func(e *outbox.Event) { e.AggregateVersion = -1 }, nil},
		{"no type", "Type", func(e *outbox.Event) { e.Type = "" }, nil},
		{"type with U+0001", "Type", func(e *outbox.Event) { e.Type = "\u0001" }, nil},
		{"type not UTF-8", "Type", func(e *outbox.Event) { e.Type = "\xff" }, notText},
		{"long type", "Type", func(e *outbox.Event) { e.Type = strings.Repeat("t", 513) }, nil},
		{"header without a name", "Headers[]", header("", "x"), nil},
		{"header of CloudEvents", "Headers[ce_id]", header("ce_id", "x"), nil},
		{"header of CloudEvents in capitals", "Headers[CE_]", header("CE_", "x"), nil},
		{"header with a space", "Headers[a b]", header("a b", "x"), nil},
		{"header not ASCII", "Headers[ü]", header("ü", "x"), nil},
		{"header with DEL", "Headers[a\x7f]", header("a\x7f", "x"), nil},
		{"long header name", "Headers[" + strings.Repeat("h", 513) + "]", header(strings.Repeat("h", 513), "x"), nil},
		{"header value with NUL", "Headers[a]", header("a", "\x00"), notJSON},
		{"header value not UTF-8", "Headers[a]", header("a", "\xff"), notText},
		{"a byte too many", "Payload", func(e *outbox.Event) { e.Payload = make([]byte, outbox.DefaultMaxBytes-size(e)+1) }, nil},
		{"headers count as size", "Payload", func(e *outbox.Event) {
			e.Payload = make([]byte, outbox.DefaultMaxBytes-size(e)-2)
			e.Headers = map[string]string{"a": "é"} // three bytes
		}, nil},
	}
}

// size is what the names of e count for.
func size(e *outbox.Event) int { return len(e.AggregateType) + len(e.AggregateID) + len(e.Type) }

// refuse writes bad events in a transaction that then goes on.
func (s *suite) refuse(t *testing.T) {
	about := devstacktest.Name(t)
	tx := s.begin(t)
	write := func(version int64) {
		t.Helper()
		must(t, tx.write(t.Context(), []outbox.Event{s.event(about, version)}))
	}
	exec := func(sql string) {
		t.Helper()
		must(t, tx.exec(t.Context(), sql))
	}
	write(1)
	for _, b := range badEvents() {
		for _, before := range []int{0, 1, many} {
			if before == many && (b.name != "no type" || s.path.sqlOnly) {
				continue // once is enough for COPY; the function writes one event a call
			}
			good := s.event(about, 1000)
			spoilt := s.event(about, 2000)
			b.spoil(&spoilt)
			if s.path.sqlOnly {
				exec(`savepoint refused`)
			}
			err := tx.write(t.Context(), append(slices.Repeat([]outbox.Event{good}, before), spoilt))
			switch {
			case err == nil:
				t.Fatalf("%s: was written", b.name)
			case s.path.sqlOnly:
				refusedBySQL(t, b, err)
				exec(`rollback to refused`)
			default:
				refusedByLibrary(t, b, err, before)
			}
		}
	}
	limit := s.event(about, 2)
	limit.Payload = make([]byte, outbox.DefaultMaxBytes-size(&limit))
	must(t, tx.write(t.Context(), []outbox.Event{limit}))
	write(3)
	must(t, tx.commit(t.Context()))
	compare(t, s.settle(t, about), []outbox.Event{s.event(about, 1), limit, s.event(about, 3)})
}

func refusedByLibrary(t *testing.T, b bad, err error, index int) {
	t.Helper()
	refused, ok := errors.AsType[*outbox.EventError](err)
	if !ok {
		t.Fatalf("%s: %v, want an EventError", b.name, err)
	}
	if refused.Field != b.field || refused.Index != index || refused.Hint == "" {
		t.Errorf("%s: refused event %d, field %q, hint %q; want event %d, field %q", b.name, refused.Index, refused.Field, refused.Hint, index, b.field)
	}
}

func refusedBySQL(t *testing.T, b bad, err error) {
	t.Helper()
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatalf("%s: %v, want PostgreSQL's error", b.name, err)
	}
	if b.states != nil {
		if !slices.Contains(b.states, refused.Code) {
			t.Errorf("%s: SQLSTATE %s (%s), want one of %s", b.name, refused.Code, refused.Message, b.states)
		}
		return
	}
	// AggregateType, Headers[a] → aggregate_type, headers[a]
	field := strings.NewReplacer("AggregateType", "aggregate_type", "AggregateID", "aggregate_id", "AggregateVersion", "aggregate_version",
		"Topic", "topic", "Type", "type", "Payload", "payload", "Headers", "headers").Replace(b.field)
	if refused.Code != "22023" || refused.ColumnName != field || !strings.Contains(refused.Message, field[:min(len(field), 64)]) || !strings.HasPrefix(refused.Hint, field[:min(len(field), 64)]) {
		t.Errorf("%s: SQLSTATE %s, column %q, message %q, hint %q; want 22023 and %q in all three", b.name, refused.Code, refused.ColumnName, refused.Message, refused.Hint, field)
	}
}
