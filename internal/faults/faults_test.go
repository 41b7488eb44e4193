package faults

import (
	"testing"
)

// A fault happens while the writers write and the relay publishes.
type fault struct {
	name string
	do   func(w *world)

	again  int  // how many transactions may come again, at least once
	outage bool // PostgreSQL fails: the writers try again
	long   bool // takes long: for make test-long only
}

// TestFaults lets each fault happen on one PostgreSQL and one broker, and
// checks all promises after it.
func TestFaults(t *testing.T) {
	s := startServers(t)
	var all []fault
	all = append(all, relayFaults()...)
	all = append(all, postgresFaults()...)
	all = append(all, networkFaults()...)
	all = append(all, kafkaFaults()...)
	for _, d := range []delivery{atLeastOnce} {
		t.Run(string(d), func(t *testing.T) {
			for _, f := range all {
				t.Run(f.name, func(t *testing.T) {
					if f.long && !long() {
						t.Skip("takes long: set WALPOST_TEST_LONG=1")
					}
					f.run(t, s, d)
				})
			}
		})
	}
}

func (f fault) run(t *testing.T, s *servers, d delivery) {
	w := newWorld(t, s, d, s.kafka.Brokers, []string{s.kafkaNetwork.Addr})
	t.Cleanup(func() { s.pgNetwork.Heal(); s.kafkaNetwork.Heal() })
	w.load.outage.Store(f.outage)
	w.load.start(t)
	ended := false
	defer func() { // a fault that fails leaves the writers running
		if !ended {
			w.load.end()
		}
	}()
	rounds := 1
	if long() {
		rounds = 10
	}
	for range rounds {
		w.flow(100)
		f.do(w)
		w.flow(100)
	}
	ended = true
	w.load.end()
	again := f.again
	if again != anyNumber {
		again *= rounds
	}
	w.settle(again)
}
