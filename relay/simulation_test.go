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
	simSchedules = flag.Int("sim.schedules", 0, "how many seeds to simulate; default 10000, 1000 with -short, WALPOST_TEST_SCHEDULES")
	simFrom      = flag.Uint64("sim.from", 1, "the first of them")
)

// simulate runs the simulation of seed. broken says which promise was, and the
// trace what had happened.
func simulate(t *testing.T, base Config, m *metrics, seed uint64, tracing bool) (broken string, trace []string) {
	t.Helper()
	s := &simulation{base: base, metrics: m, random: rand.New(rand.NewPCG(seed, 0)), tracing: tracing}
	s.kafka.sim = s
	defer func() {
		// The bubble ends by a panic when goroutines are left in it.
		if left := recover(); left != nil {
			broken, trace = fmt.Sprintf("goroutines are left behind: %v", left), s.trace
		}
	}()
	synctest.Test(t, func(*testing.T) {
		s.began = time.Now()
		s.drive()
	})
	return s.broken, s.trace
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
		broken, trace := simulate(t, cfg, m, *simSeed, true)
		t.Logf("seed %d:\n%s", *simSeed, strings.Join(trace, "\n"))
		if broken != "" {
			t.Errorf("seed %d: %s", *simSeed, broken)
		}
		return
	}
	schedules := simCount(t)
	began := time.Now()
	var next atomic.Uint64
	var mu sync.Mutex
	failed := make(map[uint64]string)
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
					if broken, _ := simulate(t, cfg, m, *simFrom+n, false); broken != "" {
						mu.Lock()
						failed[*simFrom+n] = broken
						mu.Unlock()
					}
				}
			})
		}
	})
	t.Logf("%d schedules, %v", schedules, time.Since(began).Round(time.Millisecond))
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
	broken, trace := simulate(t, cfg, m, seeds[0], true)
	t.Errorf("%d of %d schedules broke a promise. Again with -sim.seed=%d: %s\n%s", len(seeds), schedules, seeds[0], broken, strings.Join(trace, "\n"))
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
		_, first := simulate(t, cfg, m, 1_000_000+seed, true)
		_, second := simulate(t, cfg, m, 1_000_000+seed, true)
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
