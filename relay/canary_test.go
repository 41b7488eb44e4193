package relay_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay"
)

// quick makes canaries late soon.
func quick(f *fixture) {
	f.config.CanaryEvery, f.config.CanaryWithin, f.config.ConfirmEvery = 100*time.Millisecond, time.Second, 10*time.Millisecond
}

// run is start with the relay itself.
func (f *fixture) run(t *testing.T, r *relay.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(t, "the relay to be ready", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}

func (f *fixture) relay(t *testing.T) *relay.Relay {
	t.Helper()
	r, err := relay.New(f.config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// late waits until the relay is not ready, and wants the reason to hold words.
func late(t *testing.T, r *relay.Relay, words string) {
	t.Helper()
	began := time.Now()
	var err error
	devstacktest.Wait(t, "the relay not to be ready", 10*time.Second, func() bool { err = r.Ready(t.Context()); return err != nil })
	if e, ok := errors.AsType[*relay.LateError](err); !ok || !strings.Contains(e.Where, words) {
		t.Errorf("Ready = %v, want a canary that is late and %q", err, words)
	}
	// A canary may have been written up to CanaryEvery later.
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("not ready after %v, want a second and a little", took)
	}
}

func ready(t *testing.T, r *relay.Relay) {
	t.Helper()
	devstacktest.Wait(t, "the relay to be ready again", 20*time.Second, func() bool { return r.Ready(t.Context()) == nil })
}

// TestAReaderThatStandsStillIsNotReady: everything else of the relay goes on,
// so that PostgreSQL, the lock and the log see nothing of it.
func TestAReaderThatStandsStillIsNotReady(t *testing.T) {
	f := newFixture(t)
	quick(f)
	r := f.relay(t)
	hold, release := relay.HoldReader(r)
	stop := f.run(t, r)
	defer stop()
	defer release()
	hold()
	late(t, r, "not seen in the stream")
	release()
	ready(t, r)
}

// TestAWalsenderThatStandsStillIsNotReady freezes the process that serves the
// stream. PostgreSQL itself goes on, and the connection stays open.
func TestAWalsenderThatStandsStillIsNotReady(t *testing.T) {
	f := newFixture(t)
	quick(f)
	r := f.relay(t)
	stop := f.run(t, r)
	defer stop()
	var pid int
	if err := f.conn.QueryRow(t.Context(), `select active_pid from pg_replication_slots where database = current_database()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("freeze the walsender: %v", err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	late(t, r, "not seen in the stream")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	ready(t, r)
}

// TestEventsThatKafkaTurnsAwayMakeTheRelayNotReady: the canary is behind an
// event that is not acknowledged, though it comes through the stream and
// positions could be stored.
func TestEventsThatKafkaTurnsAwayMakeTheRelayNotReady(t *testing.T) {
	f := newFixture(t)
	quick(f)
	g := newGate(t, f)
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	r := f.relay(t)
	stop := f.run(t, r)
	defer stop()
	if lag := gauge(t, registry, "relay_lag_seconds"); lag > 1 {
		t.Errorf("relay_lag_seconds = %v while nothing waits", lag)
	}
	f.write(t, f.event("42", 1))
	late(t, r, "is not acknowledged")
	if lag := gauge(t, registry, "relay_lag_seconds"); lag < .9 {
		t.Errorf("relay_lag_seconds = %v for an event of a second ago", lag)
	}
	if ready := gauge(t, registry, "relay_ready"); ready != 0 {
		t.Errorf("relay_ready = %v", ready)
	}
	g.closed.Store(false)
	ready(t, r)
	devstacktest.Wait(t, "the lag to be gone", 10*time.Second, func() bool { return gauge(t, registry, "relay_lag_seconds") < .9 })
}

// TestCanariesAreNoRecordsAndMoveAnIdleSlot, on each version of PostgreSQL.
func TestCanariesAreNoRecordsAndMoveAnIdleSlot(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			f := fixtureOn(t, devstacktest.DatabaseOf(t, version))
			quick(f)
			registry := prometheus.NewRegistry()
			f.config.Metrics = registry
			r := f.relay(t)
			stop := f.run(t, r)
			var everybody bool
			err := f.conn.QueryRow(t.Context(), `select bool_and(has_function_privilege('public', oid, 'execute')) from pg_proc where proname = 'pg_logical_emit_message'`).Scan(&everybody)
			if err != nil || !everybody {
				t.Errorf("not every role may write a message: %v", err)
			}
			var first string
			if err := f.conn.QueryRow(t.Context(), `select pg_current_wal_insert_lsn()::text`).Scan(&first); err != nil {
				t.Fatal(err)
			}
			devstacktest.Wait(t, "the slot to move beyond where the log ended", 20*time.Second, func() bool {
				var moved bool
				err := f.conn.QueryRow(t.Context(), `select confirmed_flush_lsn > $1::pg_lsn from pg_replication_slots where database = current_database()`, first).Scan(&moved)
				if err != nil {
					t.Fatal(err)
				}
				return moved
			})
			if trip := gauge(t, registry, "relay_canary_round_trip_seconds"); trip <= 0 || trip > 10 {
				t.Errorf("the canary took %v s", trip)
			}
			if sequence := gauge(t, registry, "relay_position_sequence"); sequence != 0 {
				t.Errorf("sequence %v without an event", sequence)
			}
			f.write(t, f.event("42", 1))
			if events := f.read(t, 1); events[0].Sequence != 1 {
				t.Errorf("the first event has sequence %d", events[0].Sequence)
			}
			stop()
		})
	}
}

// TestARoleThatMayNotWriteCanaries falls back to the server's answers, says so
// once, and is not ready all the same when the stream stands still. The server
// is the test's own, so that nobody else's log moves it.
func TestARoleThatMayNotWriteCanaries(t *testing.T) {
	f := fixtureOn(t, devstacktest.DatabaseOf(t, "17"))
	quick(f)
	role := devstacktest.Name(t)
	for _, sql := range []string{
		`create role ` + role + ` login replication password 'relay'`,
		`grant execute on function pg_control_system() to ` + role,
		`alter table outbox owner to ` + role,
		`grant create on database "` + f.conn.Config().Database + `" to ` + role,
		`do $$ declare f regprocedure; begin
			for f in select oid from pg_proc where proname = 'pg_logical_emit_message' loop
				execute 'revoke execute on function ' || f || ' from public';
			end loop;
		end $$`,
	} {
		if _, err := f.conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	t.Cleanup(func() {
		if _, err := f.conn.Exec(context.WithoutCancel(t.Context()), `drop owned by `+role+` cascade; drop role `+role); err != nil {
			t.Error(err)
		}
	})
	dsn, err := url.Parse(f.config.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(role, "relay")
	f.config.Postgres = dsn.String()
	f.config.SenderTimeout = time.Second // the server is asked for an answer three times as often
	said := new(lines)
	f.config.Log = slog.New(slog.NewTextHandler(said, nil))
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	r := f.relay(t)
	hold, release := relay.HoldReader(r)
	stop := f.run(t, r)
	defer stop()
	defer release()
	devstacktest.Wait(t, "a look at the server's answers", 10*time.Second, func() bool { return has(t, registry, "relay_canary_round_trip_seconds") })
	hold()
	late(t, r, "")
	release()
	ready(t, r)
	if n := said.count("may not write a canary"); n != 1 {
		t.Errorf("said %d times that the role may not write a canary, want once", n)
	}
}

// TestWithoutCanaries is ready while it streams, whatever comes of it.
func TestWithoutCanaries(t *testing.T) {
	f := newFixture(t)
	quick(f)
	f.config.CanaryEvery = -1
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	r := f.relay(t)
	hold, release := relay.HoldReader(r)
	stop := f.run(t, r)
	defer stop()
	defer release()
	hold()
	devstacktest.Wait(t, "the slot to be looked at", 10*time.Second, func() bool { return has(t, registry, "relay_slot_retained_bytes") })
	timer := time.After(1500 * time.Millisecond)
	<-timer
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("Ready = %v", err)
	}
	if age := gauge(t, registry, "relay_canary_age_seconds"); age != 0 || has(t, registry, "relay_canary_round_trip_seconds") {
		t.Errorf("a canary was written, its age is %v s", age)
	}
}

// lines are what a log has said.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func has(t *testing.T, registry *prometheus.Registry, name string) bool {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return true
		}
	}
	return false
}

// TestLagIsTheAgeOfTheOldestCommit that was read and is not stored, without
// canaries: it grows while Kafka turns an event away, whatever follows.
func TestLagIsTheAgeOfTheOldestCommit(t *testing.T) {
	f := newFixture(t)
	quick(f)
	f.config.CanaryEvery = -1
	g := newGate(t, f)
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	stop := f.run(t, f.relay(t))
	defer stop()
	lag := func() time.Duration {
		return time.Duration(gauge(t, registry, "relay_lag_seconds") * float64(time.Second))
	}
	began := time.Now()
	f.write(t, f.event("42", 1))
	devstacktest.Wait(t, "a lag of a second", 10*time.Second, func() bool { return lag() > time.Second })
	if took := time.Since(began); took < time.Second {
		t.Errorf("a lag of a second after %v", took)
	}
	f.write(t, f.event("42", 2))
	devstacktest.Wait(t, "a lag of two seconds", 10*time.Second, func() bool {
		if behind := lag(); behind < time.Second {
			t.Fatalf("the lag has fallen to %v while the first event is turned away", behind)
		}
		return lag() > 2*time.Second
	})
	g.closed.Store(false)
	devstacktest.Wait(t, "the lag to be gone", 10*time.Second, func() bool { return lag() == 0 })
}

// TestASilentNetworkMakesTheRelayNotReady: between PostgreSQL and the relay
// everything is swallowed and nothing is closed. The canary can't be written
// then either.
func TestASilentNetworkMakesTheRelayNotReady(t *testing.T) {
	f := newFixture(t)
	quick(f)
	dsn, err := url.Parse(f.config.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := devstack.StartProxy(t.Context(), dsn.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	}()
	if f.config.Postgres, err = proxy.DSN(f.config.Postgres); err != nil {
		t.Fatal(err)
	}
	r := f.relay(t)
	stop := f.run(t, r)
	defer stop()
	proxy.Blackhole(devstack.BothWays)
	late(t, r, "written to PostgreSQL")
	proxy.Strand() // what was swallowed is gone for good
	proxy.Heal()
	ready(t, r)
}
