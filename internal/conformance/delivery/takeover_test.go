package delivery_test

import (
	"net/url"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay"
)

const (
	stopSignal = syscall.SIGSTOP
	contSignal = syscall.SIGCONT
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// TestRollingRestartRepeatsNothing stops the relay that works while another one
// waits, again and again, under load and inside large transactions. It takes
// over in less than a second, and no record comes twice, to those either who
// read what is not committed.
func TestRollingRestartRepeatsNothing(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			w := newWorld(t)
			w.config.Delivery = delivery
			stop := w.start(w.config)
			stopLoad := w.load()
			conn := w.connect()
			for range 6 {
				standby, stopStandby := w.launch(w.config)
				w.write(conn, 5000)
				if standby.Ready(t.Context()) == nil {
					t.Fatal("two relays stream at once")
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				devstacktest.Wait(t, "the standby to stream", patience, func() bool { return standby.Ready(t.Context()) == nil })
				if took := time.Since(began); took > time.Second {
					t.Errorf("the standby took over after %v", took)
				}
				stop = stopStandby
			}
			stopLoad()
			w.once(w.records(kgo.ReadUncommitted()))
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestTakeoverFromADeadRelay kills, freezes or cuts off the relay that works. A
// standby takes over within the sender's timeout and a second.
func TestTakeoverFromADeadRelay(t *testing.T) {
	const timeout = 4 * time.Second
	for _, name := range []string{"killed", "frozen", "cut off"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.config.SenderTimeout = timeout
			network := w.network()
			first := w.config
			var err error
			if first.Postgres, err = network.DSN(w.config.Postgres); err != nil {
				t.Fatal(err)
			}
			leader := w.spawn(first, nowhere, 0)
			stopLoad := w.load()
			w.published()
			standby, stop := w.launch(w.config)
			if standby.Ready(t.Context()) == nil {
				t.Fatal("two relays stream at once")
			}
			switch name {
			case "killed":
				leader.kill()
			case "frozen":
				leader.signal(stopSignal)
			case "cut off":
				network.Blackhole(devstack.BothWays)
			}
			began := time.Now()
			devstacktest.Wait(t, "the standby to stream", patience, func() bool { return standby.Ready(t.Context()) == nil })
			took := time.Since(began)
			t.Logf("took over after %v", took)
			if took > timeout+time.Second {
				t.Errorf("the standby took over after %v", took)
			}
			stopLoad()
			w.records(kgo.ReadUncommitted())
			switch name { // back to a world in which the slot is another's
			case "frozen":
				leader.signal(contSignal)
			case "cut off":
				network.Heal()
			}
			w.published()
			again := w.repeats(w.records(kgo.ReadUncommitted()))
			t.Logf("%d of %d records came again", len(again), w.written)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if name != "killed" {
				w.published() // by the first one, from the position of the other
			}
		})
	}
}

// TestACutOffRelayStopsBeforeAnotherBegins blackholes PostgreSQL for the relay
// that works, which has much to publish and all of Kafka. It gives up before
// its lock and slot can be another's.
func TestACutOffRelayStopsBeforeAnotherBegins(t *testing.T) {
	w := newWorld(t)
	w.config.SenderTimeout = 4 * time.Second
	network := w.network()
	first := w.config
	var err error
	if first.Postgres, err = network.DSN(w.config.Postgres); err != nil {
		t.Fatal(err)
	}
	leader, stopLeader := w.launch(first)
	devstacktest.Wait(t, "the first relay to stream", patience, func() bool { return leader.Ready(t.Context()) == nil })
	stopLoad := w.load()
	standby, stop := w.launch(w.config)
	w.published()
	network.Blackhole(devstack.BothWays)
	began := time.Now()
	var gaveUp, tookOver time.Duration
	devstacktest.Wait(t, "the standby to stream", patience, func() bool {
		if gaveUp == 0 && leader.Ready(t.Context()) != nil {
			gaveUp = time.Since(began)
		}
		if standby.Ready(t.Context()) != nil {
			return false
		}
		tookOver = time.Since(began)
		return true
	})
	t.Logf("gave up after %v, the other took over after %v", gaveUp, tookOver)
	if gaveUp == 0 || gaveUp > tookOver-w.config.SenderTimeout/10 {
		t.Errorf("the relay gave up after %v, and the other one took over after %v", gaveUp, tookOver)
	}
	network.Heal()
	stopLoad()
	w.repeats(w.records(kgo.ReadUncommitted()))
	for _, stop := range []func() error{stopLeader, stop} {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// network gives a proxy in front of PostgreSQL that ends with the test.
func (w *world) network() *devstack.Proxy {
	w.t.Helper()
	u, err := url.Parse(w.config.Postgres)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := devstack.StartProxy(w.t.Context(), u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return p
}

// TestALostLockEndsTheSession ends the connection that has the lock, while the
// stream and Kafka go on. The relay notices and lets the slot go, and one of
// the two, whichever asks first, streams anew.
func TestALostLockEndsTheSession(t *testing.T) {
	w := newWorld(t)
	w.config.Delivery = relay.ExactlyOnce
	w.config.SenderTimeout = 3 * time.Second
	leader, stopLeader := w.launch(w.config)
	devstacktest.Wait(t, "the first relay to stream", patience, func() bool { return leader.Ready(t.Context()) == nil })
	stopLoad := w.load()
	w.published()
	_, stop := w.launch(w.config)
	conn := w.connect()
	const sender = `select coalesce(max(r.pid), 0) from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid
		where s.database = current_database() and r.state in ('catchup', 'streaming')`
	var first int
	if err := conn.QueryRow(t.Context(), sender).Scan(&first); err != nil || first == 0 {
		t.Fatalf("walsender %d, %v", first, err)
	}
	var ended bool
	err := conn.QueryRow(t.Context(), `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted
		and database = (select oid from pg_database where datname = current_database())`).Scan(&ended)
	if err != nil || !ended {
		t.Fatal(ended, err)
	}
	began := time.Now()
	devstacktest.Wait(t, "another stream", patience, func() bool {
		var now int
		err := conn.QueryRow(t.Context(), sender).Scan(&now)
		return err != nil || now != 0 && now != first
	})
	if took := time.Since(began); took > w.config.SenderTimeout+time.Second {
		t.Errorf("another stream began after %v", took)
	}
	stopLoad()
	w.once(w.records(kgo.ReadCommitted()))
	for _, stop := range []func() error{stopLeader, stop} {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}
