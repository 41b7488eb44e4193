package write_test

import (
	"bytes"
	"cmp"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// TestConformance runs the suite over every path on every PostgreSQL. How a
// client speaks to the server matters most to the client: on those between the
// oldest and the newest, two links stand for all unless WALPOST_TEST_LONG is
// set.
func TestConformance(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run("PostgreSQL "+version, func(t *testing.T) {
			every := version == "14" || version == "18" || os.Getenv("WALPOST_TEST_LONG") != ""
			if !every {
				t.Log("two links only; WALPOST_TEST_LONG=1 runs all")
			}
			w := newWorld(t, version)
			t.Run("interleaved transactions", func(t *testing.T) {
				t.Parallel()
				interleaved(t, w)
			})
			t.Run("concurrent transactions", func(t *testing.T) {
				t.Parallel()
				concurrent(t, w)
			})
			for _, p := range paths(links(every)) {
				t.Run(p.name, func(t *testing.T) {
					t.Parallel()
					(&suite{world: w, path: p, client: p.open(t, w)}).run(t)
				})
			}
		})
	}
}

// A suite holds the promises to one path.
type suite struct {
	*world
	path   path
	client client
}

func (s *suite) run(t *testing.T) {
	tx := s.begin(t)
	_, changes := tx.(changer)
	must(t, tx.rollback(t.Context()))
	for _, promise := range []struct {
		name string
		keep func(*testing.T)
		made bool // by this path
	}{
		{"committed events arrive as written", s.arrive, true},
		{"rolled back events never arrive", s.rollBack, true},
		{"savepoints count", s.savepoints, true},
		{"refused events leave nothing", s.refuse, true},
		{"the context tells the metadata", s.metadata, !s.path.sqlOnly},
		{"no change, no event", s.changes, changes},
	} {
		// One connection serves all, so a promise broken in the middle of a
		// transaction is the last.
		if promise.made && !t.Run(promise.name, promise.keep) {
			return
		}
	}
}

func (s *suite) begin(t *testing.T) transaction {
	t.Helper()
	tx, err := s.client.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// event gives a small event, whose version tells which one it is.
func (w *world) event(aggregateType string, version int64) outbox.Event {
	return outbox.Event{
		Topic: w.topics[0], AggregateType: aggregateType, AggregateID: "42", AggregateVersion: version, Type: "Tested", Payload: []byte(`{}`),
	}
}

// many events make Write use COPY.
const many = 260

// arrive writes what is hard to carry, in calls of one, several and many.
func (s *suite) arrive(t *testing.T) {
	about := devstacktest.Name(t)
	tx := s.begin(t)
	at, err := tx.text(t.Context(), `select to_char(now() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`)
	must(t, err)
	var all []outbox.Event
	for _, n := range []int{1, 2, 40, 1, many} {
		events := s.assortment(about, n)
		must(t, tx.write(t.Context(), events))
		all = append(all, events...)
	}
	must(t, tx.commit(t.Context()))
	got := s.settle(t, about)
	compare(t, got, all)
	for i, r := range got {
		if arrived := r.Time.UTC().Format("2006-01-02 15:04:05.000000"); arrived != at {
			t.Fatalf("event %d has time %s, its transaction %s", i, arrived, at)
		}
	}
}

// assortment gives n events, the last of them with an id of its own.
func (s *suite) assortment(about string, n int) []outbox.Event {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	payloads := [][]byte{
		[]byte(`{"a":"ü \" \\ '"}`), nil, {}, {0}, every, []byte(`\x00`), []byte(`\\`), {0xfe, 1}, bytes.Repeat([]byte("longer "), 500),
	}
	names := []string{"42", "ü/€ '\"\\ \u2028\U0001f600", "{a,b}", "$1", "NULL", strings.Repeat("é", 256)}
	headers := []map[string]string{
		nil,
		{},
		{"a": ""},
		{`quote"d\`: `a "b" \ 'c' {d} $1 <&>`, "z": "\t\n\u0001\u2028\U0001f600", "!": "~"},
		{"content-type": "text/plain; charset=utf-8", "requestId": "r", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	versions := []int64{0, 1, 2, math.MaxInt64}
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = outbox.Event{
			Topic: s.topics[i%5/4], AggregateType: about, AggregateID: names[i%len(names)], AggregateVersion: versions[i%len(versions)],
			Type: []string{"Tested", "Gëtestet"}[i%2], Payload: payloads[(i+n)%len(payloads)], Headers: headers[i%len(headers)],
		}
	}
	if n == 40 { // more than an envelope's 256 KiB, so that the next ones begin another
		events[n/2].Payload = bytes.Repeat([]byte("large "), 50_000)
	}
	if !s.path.sqlOnly {
		events[n-1].ID = outbox.NewID()
	}
	return events
}

// compare checks that got are the events want, in their order.
func compare(t tester, got []received, want []outbox.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d events arrived, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if want, got := expected(&want[i]), seen(&got[i]); !want.equal(got) {
			t.Fatalf("event %d: wanted (-), arrived (+):\n%s", i, gocmp.Diff(want, got))
		}
		id, err := outbox.ParseID(got[i].ID)
		if err != nil || id[6]>>4 != 7 || id[8]>>6 != 0b10 {
			t.Fatalf("event %d: id %s is no version 7 UUID: %v", i, got[i].ID, err)
		}
		if !want[i].ID.IsZero() && id != want[i].ID {
			t.Fatalf("event %d: id %s, written with %s", i, id, want[i].ID)
		}
	}
}

// A record is what an event looks like to a consumer.
type record struct {
	Fields  fields
	Headers []cloudevent.Header
	Payload []byte
}

type fields struct {
	Topic, Key, AggregateType, Subject, Type, ContentType string
	Version                                               int64
}

func (r record) equal(o record) bool {
	return r.Fields == o.Fields && slices.Equal(r.Headers, o.Headers) && bytes.Equal(r.Payload, o.Payload)
}

func seen(r *received) record {
	return record{fields{r.topic, r.key, r.AggregateType, r.Subject, r.Type, r.ContentType, r.AggregateVersion}, r.Headers, r.Data}
}

func expected(e *outbox.Event) record {
	r := record{fields{e.Topic, e.AggregateID, e.AggregateType, e.AggregateID, e.Type, "application/json", e.AggregateVersion}, nil, e.Payload}
	// In jsonb's order, short names first, whatever the path.
	for _, name := range slices.SortedFunc(maps.Keys(e.Headers), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}) {
		if name == outbox.HeaderContentType {
			r.Fields.ContentType = e.Headers[name]
			continue
		}
		r.Headers = append(r.Headers, cloudevent.Header{Name: name, Value: e.Headers[name]})
	}
	return r
}

func (s *suite) rollBack(t *testing.T) {
	about := devstacktest.Name(t)
	many := slices.Repeat([]outbox.Event{s.event(about, 1)}, many)
	tx := s.begin(t)
	must(t, tx.write(t.Context(), []outbox.Event{s.event(about, 1)}))
	must(t, tx.write(t.Context(), many))
	must(t, tx.rollback(t.Context()))

	tx = s.begin(t)
	must(t, tx.write(t.Context(), many))
	if err := tx.exec(t.Context(), `select 1/0`); err == nil {
		t.Fatal("1/0 is no error")
	}
	if err := tx.commit(t.Context()); err == nil {
		t.Error("an aborted transaction was committed")
	}
	compare(t, s.settle(t, about), nil)
}

func (s *suite) savepoints(t *testing.T) {
	about := devstacktest.Name(t)
	tx := s.begin(t)
	write := func(version int64) {
		t.Helper()
		events := []outbox.Event{s.event(about, version), s.event(about, version+1)}
		must(t, tx.write(t.Context(), events))
	}
	exec := func(sql string) {
		t.Helper()
		must(t, tx.exec(t.Context(), sql))
	}
	write(1)
	exec(`savepoint a`)
	write(11)
	exec(`savepoint b`)
	write(13)
	exec(`rollback to a`)
	write(3)
	exec(`savepoint c`)
	write(5)
	exec(`release c`)
	exec(`savepoint d`)
	if err := tx.exec(t.Context(), `select 1/0`); err == nil {
		t.Fatal("1/0 is no error")
	}
	exec(`rollback to d`)
	write(7)
	must(t, tx.commit(t.Context()))
	var want []outbox.Event
	for version := range int64(8) {
		want = append(want, s.event(about, version+1))
	}
	compare(t, s.settle(t, about), want)
}

func (s *suite) metadata(t *testing.T) {
	about := devstacktest.Name(t)
	ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{
		UserID: "u", RequestID: "r", CorrelationID: "c", CausationID: "b", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=b",
	})
	events := []outbox.Event{s.event(about, 1), s.event(about, 2)}
	events[1].Headers = map[string]string{"requestId": "its own", "x": "y"}
	tx := s.begin(t)
	must(t, tx.write(ctx, events))
	must(t, tx.write(ctx, slices.Repeat(events, many/2)))
	must(t, tx.commit(t.Context()))
	added := map[string]string{
		"userId": "u", "requestId": "r", "correlationId": "c", "causationId": "b", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b",
	}
	for i := range events {
		all := maps.Clone(added)
		maps.Copy(all, events[i].Headers)
		events[i].Headers = all
	}
	compare(t, s.settle(t, about), slices.Repeat(events, 1+many/2))
}
