package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// A gate lets connections to PostgreSQL through, or cuts them all.
type gate struct {
	address string
	mu      sync.Mutex
	closed  bool
	conns   []net.Conn
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{address: listener.Addr().String()}
	t.Cleanup(func() { _ = listener.Close(); g.set(true) })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			g.mu.Lock()
			if err != nil || g.closed {
				_ = in.Close()
			}
			g.conns = append(g.conns, in)
			if out != nil {
				g.conns = append(g.conns, out)
				go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
				go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
			}
			g.mu.Unlock()
		}
	}()
	return g
}

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
	if closed {
		for _, c := range g.conns {
			_ = c.Close()
		}
		g.conns = nil
	}
}

// TestPostgreSQLAway cuts every connection while events are handled: they wait,
// and no attempt is counted.
func TestPostgreSQLAway(t *testing.T) {
	w := newWorld(t, 1)
	config, err := pgxpool.ParseConfig(w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, net.JoinHostPort(config.ConnConfig.Host, fmt.Sprint(config.ConnConfig.Port)))
	dsn, err := url.Parse(w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	dsn.Host = g.address
	c := w.config(t)
	c.Pool, c.MaxAttempts = w.connect(t, dsn.String()), 1
	var calls atomic.Int32
	entered, release := make(chan struct{}, 100), make(chan struct{})
	in, _ := w.start(t, c, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if calls.Add(1) == 1 { // to be cut in the middle
			entered <- struct{}{}
			<-release
		}
		return effect(ctx, tx, e, "")
	})
	w.steps(t, 1, 3, "a", "b")
	<-entered
	g.set(true)
	close(release)
	devstacktest.Wait(t, "events to wait", limit, func() bool { return in.Stats().Unavailable > 5 })
	g.set(false)
	w.wait(t, `select count(*) >= 6 from effects`)
	w.check(t, 3, "a", "b")
	if s := in.Stats(); s.Dead+s.Retries > 0 {
		t.Errorf("Stats %+v: the outage was counted against events", s)
	}
}

// TestWhatAHandlerDoesToItsTransaction has handlers misuse it: their event
// fails, and nothing of it is committed.
func TestWhatAHandlerDoesToItsTransaction(t *testing.T) {
	tests := map[string]struct {
		handle func(ctx context.Context, tx pgx.Tx) error
		want   string // in the error of the dead letter; empty: it is handled
	}{
		"commits":           {func(ctx context.Context, tx pgx.Tx) error { _ = tx.Commit(ctx); return nil }, "return nil or an error instead"},
		"rolls back":        {func(ctx context.Context, tx pgx.Tx) error { _ = tx.Rollback(ctx); return nil }, "return nil or an error instead"},
		"rolls back in SQL": {func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, `rollback`); return err }, "return nil or an error instead"},
		"hides a failure":   {func(ctx context.Context, tx pgx.Tx) error { _, _ = tx.Exec(ctx, `select 1/0`); return nil }, "a statement of the handler failed"},
		"breaks a late check": {func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `insert into late values (1), (1)`)
			return err
		}, "late"},
		"panics":                  {func(context.Context, pgx.Tx) error { panic("at the disco") }, "at the disco"},
		"panics with an error":    {func(context.Context, pgx.Tx) error { panic(errFlaky) }, errFlaky.Error()},
		"gives a permanent error": {func(context.Context, pgx.Tx) error { return inbox.Permanent(errFlaky) }, errFlaky.Error()},
		"uses a savepoint": {func(ctx context.Context, tx pgx.Tx) error {
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, `select 1/0`); return err })
			if err == nil {
				return errors.New("1/0 is no error")
			}
			return nil
		}, ""},
	}
	w := newWorld(t, 1)
	w.exec(t, `create table late (n integer unique deferrable initially deferred)`)
	byKey := make(map[string]func(ctx context.Context, tx pgx.Tx) error)
	for name, tt := range tests {
		byKey[name[:min(12, len(name))]] = tt.handle
	}
	config := w.config(t)
	config.MaxAttempts = 2
	in, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if err := effect(ctx, tx, e, ""); err != nil {
			return err
		}
		return byKey[e.Subject](ctx, tx)
	})
	for name := range tests {
		r := w.event(name[:min(12, len(name))], 1)
		r = set(r, "ce_id", "of "+name)
		w.produce(t, r)
	}
	devstacktest.Wait(t, "all to be finished", limit, func() bool { return w.committed(t) == int64(len(tests)) })
	for name, tt := range tests {
		key := name[:min(12, len(name))]
		want := 0
		if tt.want == "" {
			want = 1
		} else if got := value[string](t, w, `select coalesce(max(error), 'no dead letter') from inbox_dead where ordering_key = $1`, "walker/"+key); !strings.Contains(got, tt.want) {
			t.Errorf("a handler that %s: error %.300q, want %q in it", name, got, tt.want)
		}
		if n := value[int](t, w, `select count(*) from effects where key = $1`, key); n != want {
			t.Errorf("a handler that %s: its effect is there %d times, want %d", name, n, want)
		}
	}
	if s := in.Stats(); s.Unavailable > 0 {
		t.Errorf("Stats %+v: a handler's failure was taken for PostgreSQL's", s)
	}
}

// TestEventsOfAHandlerAreAChain has a handler write an event.
func TestEventsOfAHandlerAreAChain(t *testing.T) {
	w := newWorld(t, 1)
	first, second := w.event("a", 1), w.event("b", 1)
	for name, v := range map[string]string{"userId": "u", "requestId": "r", "correlationId": "c", "traceparent": "00-1-2-01", "tracestate": "s=1"} {
		first.Headers = append(first.Headers, kgo.RecordHeader{Key: name, Value: []byte(v)})
	}
	w.produce(t, first, second)
	w.start(t, w.config(t), func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		return outbox.Write(ctx, tx, outbox.Event{Topic: "walked", AggregateType: "walk", AggregateID: e.Subject, Type: "Walked", Payload: []byte(`{}`)})
	})
	w.wait(t, `select count(*) = 2 from outbox`)
	id := func(r *kgo.Record) string { return string(r.Headers[1].Value) }
	for key, want := range map[string]string{
		"a": fmt.Sprintf(`{"userId": "u", "requestId": "r", "tracestate": "s=1", "causationId": %q, "traceparent": "00-1-2-01", "correlationId": "c"}`, id(first)),
		"b": fmt.Sprintf(`{"causationId": %q, "correlationId": %q}`, id(second), id(second)),
	} {
		if got := value[string](t, w, `select headers::text from outbox where aggregate_id = $1`, key); got != want {
			t.Errorf("headers %s, want %s", got, want)
		}
	}
}

// TestAHandlerThatHangs is cut off, and its event fails.
func TestAHandlerThatHangs(t *testing.T) {
	w := newWorld(t, 1)
	w.steps(t, 1, 1, "a", "b")
	config := w.config(t)
	config.Timeout, config.MaxAttempts = 50*time.Millisecond, 2
	in, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if e.Subject == "a" {
			_, err := tx.Exec(ctx, `select pg_sleep(3600)`)
			return err
		}
		return effect(ctx, tx, e, "")
	})
	w.wait(t, `select count(*) = 1 from effects where key = 'b'`)
	w.wait(t, `select count(*) = 1 from inbox_dead where error like '%deadline exceeded%' and attempts = 2`)
	if s := in.Stats(); s.Unavailable > 0 {
		t.Errorf("Stats %+v: a handler's time-out was taken for PostgreSQL's failure", s)
	}
}

// TestEveryProtocolMode takes events every way through the tables in each of
// pgx's ways to talk to PostgreSQL, as poolers ask for them.
func TestEveryProtocolMode(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWorld(t, 1)
			poison := w.event("p", 1)
			poison.Headers = append(poison.Headers, kgo.RecordHeader{Key: "binary\xff", Value: []byte{0, 1, 255}}, kgo.RecordHeader{Key: "null_"})
			w.produce(t, w.event("a", 1), w.event("a", 2), w.event("a", 1), poison, w.event("p", 2), w.event("p", 1), w.event("a", 3))
			config, err := pgxpool.ParseConfig(w.dsn)
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.DefaultQueryExecMode = mode
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			c := w.config(t)
			c.Pool, c.MaxAttempts = pool, 1
			in, _ := w.start(t, c, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
				if e.Subject == "p" {
					return errFlaky
				}
				return effect(ctx, tx, e, "")
			})
			devstacktest.Wait(t, "all to be finished", limit, func() bool { return w.committed(t) == 7 })
			w.check(t, 3, "a")
			if s := in.Stats(); s.Dead != 1 || s.Waiting != 1 || s.Duplicates != 2 || s.Unavailable > 0 {
				t.Errorf("Stats %+v, want 1 dead, 1 waiting, 2 duplicates", s)
			}
			got := value[string](t, w, `select concat_ws(' ', convert_from(key, 'UTF8'), convert_from(payload, 'UTF8'), event_id, event_time at time zone 'UTC',`+
				` header_names[9:], array(select encode(v, 'hex') from unnest(header_values[9:]) v)) from inbox_dead where state = 'dead'`)
			want := `p {"N":1} ` + string(poison.Headers[1].Value) + ` 2026-11-24 09:00:00.000001 {ce_aggregateversion,"\\x62696e617279ff",null_} {31,0001ff,NULL}`
			if got != want {
				t.Errorf("dead letter\n%s, want\n%s", got, want)
			}
		})
	}
}
