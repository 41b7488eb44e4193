package faults

import (
	"slices"
	"testing"
)

// A fault happens while the writers write and the relay publishes.
type fault struct {
	name string
	do   func(w *world)

	again  int  // how many transactions may come again, at least once
	outage bool // PostgreSQL fails: the writers try again
	hasty  bool // PostgreSQL gives a relay up after 2 s that it does not hear
	quiet  bool // nobody else writes
	long   bool // takes long: for make test-long only
}

// TestFaults lets each fault happen on one PostgreSQL and one broker, and some
// on three, and checks all promises after each.
func TestFaults(t *testing.T) {
	s := startServers(t)
	one := slices.Concat(relayFaults(), postgresFaults(), networkFaults(), kafkaFaults(), dataFaults())
	for _, d := range []delivery{atLeastOnce, exactlyOnce} {
		t.Run(string(d), func(t *testing.T) {
			for _, f := range one {
				f.test(t, s, d, func() ([]string, []string) { return s.kafka.Brokers, []string{s.kafkaNetwork.Addr} })
			}
		})
	}
	t.Run("three brokers", func(t *testing.T) {
		_ = s.kafka.Kill() // leave the machine to the three
		c := startCluster(t)
		for _, d := range []delivery{atLeastOnce, exactlyOnce} {
			t.Run(string(d), func(t *testing.T) {
				if d == exactlyOnce && !long() {
					t.Skip("takes long: set WALPOST_TEST_LONG=1")
				}
				for _, f := range replicaFaults(c) {
					f.test(t, s, d, func() ([]string, []string) { return c.Brokers, c.Brokers })
				}
			})
		}
	})
}

// test runs f, with brokers for all and brokers for the relay.
func (f fault) test(t *testing.T, s *servers, d delivery, brokers func() (all, relay []string)) {
	t.Run(f.name, func(t *testing.T) {
		if f.long && !long() {
			t.Skip("takes long: set WALPOST_TEST_LONG=1")
		}
		all, relay := brokers()
		var args []string
		if f.hasty {
			args = []string{"--sender-timeout", "2s"}
		}
		w := newWorld(t, s, d, all, relay, args...)
		t.Cleanup(func() { s.pgNetwork.Heal(); s.kafkaNetwork.Heal() })
		f.run(w)
	})
}

func (f fault) run(w *world) {
	again, rounds := f.again, 1
	switch {
	case long() && f.long:
		rounds = 2
	case long():
		rounds = 10
	}
	if f.quiet {
		f.do(w)
		w.settle(again)
		return
	}
	if again != anyNumber {
		again *= rounds
	}
	w.load.outage.Store(f.outage)
	w.load.start(w.t)
	defer w.load.end() // also where a fault ends the test
	for range rounds {
		w.flow(100)
		f.do(w)
		w.flow(100)
	}
	w.load.end()
	w.settle(again)
}
