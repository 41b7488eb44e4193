package relay

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	simSeed      = flag.Uint64("sim.seed", 0, "replay the simulation of this seed and print what happens")
	simSchedules = flag.Int("sim.schedules", 0, "how many seeds to simulate; default WALPOST_TEST_SCHEDULES, or else 10000; 1000 with -short, 100000 with WALPOST_TEST_LONG")
	simFrom      = flag.Uint64("sim.from", 1, "the first of them")
)

// A simResult is what came of a simulation.
type simResult struct {
	broken  string // the first promise that was
	trace   []string
	events  int
	repeats int // of events in Kafka
	relays  int // processes
}

// simulate runs the simulation of seed.
func simulate(t *testing.T, base Config, m *metrics, seed uint64, tracing bool) (result simResult) {
	t.Helper()
	s := &simulation{base: base, metrics: m, random: rand.New(rand.NewPCG(seed, 0)), tracing: tracing}
	s.kafka.sim = s
	defer func() {
		// The bubble ends by a panic when goroutines are left in it.
		if left := recover(); left != nil && s.broken == "" {
			s.broken = fmt.Sprintf("goroutines are left behind: %v", left)
		}
		result = simResult{s.broken, s.trace, len(s.ledger.events), s.ledger.repeats, len(s.relays)}
	}()
	synctest.Test(t, func(*testing.T) {
		s.began = time.Now()
		s.drive()
	})
	return result
}

func simConfig(t *testing.T) (Config, *metrics) {
	t.Helper()
	cfg, _, err := Config{Postgres: "postgres://relay@127.0.0.1/sim", Brokers: []string{"127.0.0.1:1"}, Slot: "sim"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, m
}

// TestSimulation runs the relay, whole but for its clients of PostgreSQL and
// Kafka, through many worlds in which relays and servers crash, connections
// are cut, and whatever is on its way comes late, in another order or never.
// All of a world comes from its seed; the first that breaks a promise is
// printed, and go test -run 'TestSimulation$' ./relay -sim.seed=N runs it again.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if *simSeed != 0 {
		cfg, m := simConfig(t)
		r := simulate(t, cfg, m, *simSeed, true)
		t.Logf("seed %d:\n%s", *simSeed, strings.Join(r.trace, "\n"))
		if r.broken != "" {
			t.Errorf("seed %d: %s", *simSeed, r.broken)
		}
		return
	}
	schedules := simCount(t)
	began := time.Now()
	var next atomic.Uint64
	var mu sync.Mutex
	failed := make(map[uint64]string)
	var all simResult
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				cfg, m := simConfig(t)
				for {
					n := next.Add(1) - 1
					if n >= uint64(schedules) {
						return
					}
					r := simulate(t, cfg, m, *simFrom+n, false)
					mu.Lock()
					all.events, all.repeats, all.relays = all.events+r.events, all.repeats+r.repeats, all.relays+r.relays
					if r.broken != "" {
						failed[*simFrom+n] = r.broken
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d schedules, %d events, %d of them again, %d relays, %v", schedules, all.events, all.repeats, all.relays, time.Since(began).Round(time.Millisecond))
	if schedules > 100 && (all.relays <= schedules || all.events <= schedules || all.repeats == 0) {
		t.Error("hardly anything has happened: the simulation simulates nothing")
	}
	if len(failed) == 0 {
		return
	}
	var seeds []uint64
	for seed := range failed {
		seeds = append(seeds, seed)
	}
	slices.Sort(seeds)
	for _, seed := range seeds[:min(len(seeds), 10)] {
		t.Errorf("seed %d: %s", seed, failed[seed])
	}
	cfg, m := simConfig(t)
	r := simulate(t, cfg, m, seeds[0], true)
	t.Errorf("%d of %d schedules broke a promise. Again with -sim.seed=%d: %s\n%s", len(seeds), schedules, seeds[0], r.broken, strings.Join(r.trace, "\n"))
}

func simCount(t *testing.T) int {
	t.Helper()
	if *simSchedules > 0 {
		return *simSchedules
	}
	if set := os.Getenv("WALPOST_TEST_SCHEDULES"); set != "" {
		n, err := strconv.Atoi(set)
		if err != nil || n < 1 {
			t.Fatalf("WALPOST_TEST_SCHEDULES is %q, want a number from 1", set)
		}
		return n
	}
	if os.Getenv("WALPOST_TEST_LONG") != "" {
		return 100_000
	}
	if testing.Short() {
		t.Log("-short: 1000 schedules instead of 10000")
		return 1000
	}
	return 10_000
}

// TestASeedReplaysExactly runs worlds twice. What happens in them is the same
// to the nanosecond.
func TestASeedReplaysExactly(t *testing.T) {
	t.Parallel()
	cfg, m := simConfig(t)
	for seed := range uint64(100) {
		first := simulate(t, cfg, m, 1_000_000+seed, true).trace
		second := simulate(t, cfg, m, 1_000_000+seed, true).trace
		for i := range min(len(first), len(second)) {
			if first[i] != second[i] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", 1_000_000+seed, i, first[i], second[i])
			}
		}
		if len(first) != len(second) || len(first) < 10 {
			t.Fatalf("seed %d: %d lines, then %d", 1_000_000+seed, len(first), len(second))
		}
	}
}
