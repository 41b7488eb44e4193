package outbox

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox/envelope"
)

func TestConditionalRenumbersParameters(t *testing.T) {
	t.Parallel()
	got := conditional("update users set name = $2 -- why not\nwhere id = $1 ; ", 12, "select $1::uuid, $2::text")
	want := "with changed as (\nupdate users set name = $2 -- why not\nwhere id = $1\nreturning 1)\nselect $13::uuid, $14::text where exists (select from changed)"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestStatementTable checks that only the statements that use a table name it.
func TestStatementTable(t *testing.T) {
	t.Parallel()
	event := Event{Topic: "t", AggregateType: "a", AggregateID: "1", Type: "T"}
	tests := map[string]struct {
		writer Writer
		events int
		prefix string
	}{
		"row":          {Writer{}, 1, `insert into "outbox" (id, topic,`},
		"rows":         {Writer{}, 2, `insert into "outbox" (id, topic,`},
		"named":        {Writer{Table: pgx.Identifier{"app", `out"box`}}, 1, `insert into "app"."out""box" (id, topic,`},
		"packed one":   {Writer{Mode: Packed}, 1, `insert into "outbox" (id, topic,`},
		"packed":       {Writer{Mode: Packed}, 2, `insert into "outbox" (id, topic, aggregate_type, aggregate_id, type, payload) select $1::uuid, ''`},
		"packed named": {Writer{Mode: Packed, Table: pgx.Identifier{"o"}}, 2, `insert into "o" (id, topic,`},
		"wal":          {Writer{Mode: WAL}, 2, `select pg_logical_emit_message(true, $1::text, timestamptz_send(now()) || $2::bytea)`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := make([]Event, tt.events)
			for i := range events {
				events[i] = event
			}
			sql, args, err := tt.writer.Statement(t.Context(), events...)
			if err != nil || !strings.HasPrefix(sql, tt.prefix) {
				t.Fatalf("Statement: %v\n%s\nwant it to begin with\n%s", err, sql, tt.prefix)
			}
			for i, arg := range args {
				switch arg.(type) {
				case string, int64, []byte:
				default:
					t.Errorf("argument %d is a %T, which not every driver takes", i+1, arg)
				}
			}
		})
	}
}

// TestPackKeepsEverything packs events of random sizes and reads them back.
func TestPackKeepsEverything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var writer Writer
		events := make([]Event, rapid.IntRange(1, 30).Draw(t, "events"))
		for i := range events {
			events[i] = Event{
				Topic:         rapid.SampledFrom([]string{"a", strings.Repeat("b", 249)}).Draw(t, "topic"),
				AggregateType: "user", AggregateID: rapid.SampledFrom([]string{"1", strings.Repeat("2", 512)}).Draw(t, "id"),
				AggregateVersion: rapid.Int64Range(0, 5).Draw(t, "version"), Type: "T",
				Payload: bytes.Repeat([]byte{byte(i)}, rapid.SampledFrom([]int{0, 10, 400, 3000, 7950, 8000, 200_000}).Draw(t, "size")),
			}
			if rapid.Bool().Draw(t, "headers") {
				events[i].Headers = map[string]string{"x": "1"}
			}
		}
		list, _, err := writer.prepare(t.Context(), events)
		if err != nil {
			t.Fatal(err)
		}
		limit := rapid.SampledFrom([]int{rowBytes, messageBytes}).Draw(t, "limit")
		envelopes, ids := pack(list, limit)
		if len(envelopes) != len(ids) {
			t.Fatalf("%d envelopes, %d ids", len(envelopes), len(ids))
		}
		i := 0
		for n, b := range envelopes {
			first := i
			if ids[n] != list[i].id {
				t.Errorf("envelope %d has id %v, its first event %v", n, ids[n], list[i].id)
			}
			reader, err := envelope.NewReader(b)
			if err != nil {
				t.Fatal(err)
			}
			for e := (envelope.Event{}); ; i++ {
				ok, err := reader.Next(&e)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					if len(b) > limit && i > first+1 {
						t.Errorf("envelope %d has %d bytes and %d events, over the limit of %d", n, len(b), i-first, limit)
					}
					break
				}
				want := events[i]
				headers := maps.Collect(func(yield func(string, string) bool) {
					for _, h := range e.Headers {
						if !yield(h.Name, h.Value) {
							return
						}
					}
				})
				if e.ID != list[i].id || e.Topic != want.Topic || e.AggregateID != want.AggregateID || e.AggregateVersion != want.AggregateVersion ||
					!bytes.Equal(e.Payload, want.Payload) || !maps.Equal(headers, want.Headers) {
					t.Fatalf("event %d came back as %+v", i, e)
				}
			}
		}
		if i != len(events) {
			t.Fatalf("%d events of %d came back", i, len(events))
		}
	})
}

func TestHeadersJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "headers")
		var headers []envelope.Header
		for name, value := range want {
			headers = append(headers, envelope.Header{Name: name, Value: value})
		}
		b := appendJSON(nil, headers)
		if len(want) == 0 {
			if len(b) != 0 {
				t.Fatalf("no headers are %q", b)
			}
			return
		}
		var got map[string]string
		if err := json.Unmarshal(b, &got); err != nil || !cmp.Equal(got, want) {
			t.Fatalf("%s is read as %v, %v, want %v", b, got, err, want)
		}
	})
}

func TestArrayLiteralQuotes(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	quote(&b, `a "b" \c`)
	quoteBytes(&b, []byte{0, 255})
	if got, want := b.String(), `"a \"b\" \\c""\\x00ff"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
