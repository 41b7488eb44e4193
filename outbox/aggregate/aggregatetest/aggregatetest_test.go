package aggregatetest_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
	"github.com/seed-048de892/walpost/outbox/aggregate/aggregatetest"
)

type seat struct {
	Holder string         `json:"holder"`
	Sold   int            `json:"sold"`
	Prices map[string]int `json:"prices"`
	Hidden string         `json:"-"` // what neither snapshots nor comparisons see
}

type (
	sold struct {
		To    string
		Price int
	}
	returned  struct{}
	forgetful struct {
		To string `json:"-"`
	}
	hidden struct{ Value string }
)

var errTaken = errors.New("the seat is taken")

func sell(to string, price int) func(*aggregate.Root[seat]) error {
	return func(r *aggregate.Root[seat]) error {
		if r.State().Holder != "" {
			return fmt.Errorf("sell %s: %w", r.ID(), errTaken)
		}
		return aggregate.Record(r, sold{To: to, Price: price})
	}
}

func seats(t *testing.T) *aggregate.Definition[seat] {
	t.Helper()
	def, err := aggregate.New(aggregate.Config[seat]{
		Type: "seat",
		Events: []aggregate.EventType[seat]{
			aggregate.On(outbox.Typed[sold]{Name: "SeatSold", Topic: "seat"}, func(s *seat, e sold) {
				if s.Prices == nil {
					s.Prices = map[string]int{}
				}
				s.Holder, s.Sold, s.Prices[e.To] = e.To, s.Sold+1, e.Price
			}),
			aggregate.On(outbox.Typed[returned]{Name: "SeatReturned", Topic: "seat"}, func(s *seat, _ returned) { s.Holder = "" }),
			aggregate.On(outbox.Typed[forgetful]{Name: "SeatForgotten", Topic: "seat"}, func(s *seat, e forgetful) { s.Holder = e.To }),
			aggregate.On(outbox.Typed[hidden]{Name: "SeatHidden", Topic: "seat"}, func(s *seat, e hidden) {
				s.Holder += s.Hidden
				s.Hidden = e.Value
			}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return def
}

func TestScenariosThatHold(t *testing.T) {
	t.Parallel()
	def := seats(t)
	aggregatetest.Given(t, def).When(sell("Ada", 5)).Then(sold{To: "Ada", Price: 5})
	aggregatetest.Given(t, def, sold{To: "Ada", Price: 5}).When(sell("Bob", 6)).ThenError(errTaken)
	aggregatetest.Given(t, def, sold{To: "Ada", Price: 5}, returned{}).ID("7F").When(func(r *aggregate.Root[seat]) error {
		if r.ID() != "7F" || r.Version() != 2 || r.Expected() != 2 || len(r.Pending()) != 0 {
			t.Errorf("the command gets %s at version %d, expecting %d, with %d pending", r.ID(), r.Version(), r.Expected(), len(r.Pending()))
		}
		return sell("Bob", 6)(r)
	}).Then(sold{To: "Bob", Price: 6}).ThenState(seat{Holder: "Bob", Sold: 2, Prices: map[string]int{"Ada": 5, "Bob": 6}})
	aggregatetest.Given(t, def).When(func(*aggregate.Root[seat]) error { return nil }).Then()
}

// Every way in which a scenario can be wrong is told so that it can be read.
func TestScenariosThatDoNot(t *testing.T) {
	t.Parallel()
	def := seats(t)
	both := func(r *aggregate.Root[seat]) error {
		return errors.Join(aggregate.Record(r, sold{To: "Ada", Price: 5}), aggregate.Record(r, returned{}))
	}
	tests := map[string]struct {
		run  func(t testing.TB)
		want []string
	}{
		"another event": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(sell("Ada", 5)).Then(returned{}) },
			want: []string{"- missing, + not wanted", "  - 1 SeatReturned {}\n", "  + 1 SeatSold {\n", `  +   "To": "Ada",` + "\n"},
		},
		"another payload": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(both).Then(sold{To: "Ada", Price: 6}, returned{}) },
			want: []string{"    1 SeatSold {\n      \"To\": \"Ada\",\n", `  -   "Price": 6` + "\n", `  +   "Price": 5` + "\n", "    2 SeatReturned {}\n"},
		},
		"one event too many": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(both).Then(sold{To: "Ada", Price: 5}) },
			want: []string{"  + 2 SeatReturned {}\n"},
		},
		"no event where one was wanted": {
			run: func(t testing.TB) {
				aggregatetest.Given(t, def).When(func(*aggregate.Root[seat]) error { return nil }).Then(returned{})
			},
			want: []string{"  - 1 SeatReturned {}\n"},
		},
		"another state": {
			run: func(t testing.TB) {
				aggregatetest.Given(t, def).When(sell("Ada", 5)).ThenState(seat{Holder: "Ada", Sold: 1})
			},
			want: []string{"state, - wanted, + got", `    "holder": "Ada"`, `  -   "prices": null` + "\n", `  +     "Ada": 5` + "\n"},
		},
		"a command that fails": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def, sold{To: "Ada"}).When(sell("Bob", 6)).Then() },
			want: []string{"the command failed: sell 1: the seat is taken"},
		},
		"a command that does not fail": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(sell("Ada", 5)).ThenError(errTaken) },
			want: []string{"gives the error <nil>, want the seat is taken", "has recorded:\n  + 1 SeatSold"},
		},
		"another error": {
			run: func(t testing.TB) {
				aggregatetest.Given(t, def).When(func(*aggregate.Root[seat]) error { return errors.New("no") }).ThenError(errTaken)
			},
			want: []string{"gives the error no, want the seat is taken"},
		},
		"an error behind an event": {
			run: func(t testing.TB) {
				aggregatetest.Given(t, def).When(func(r *aggregate.Root[seat]) error { return errors.Join(both(r), errTaken) }).ThenError(errTaken)
			},
			want: []string{"was to fail and has recorded:\n  + 1 SeatSold"},
		},
		"no error asked for": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(sell("Ada", 5)).ThenError(nil) },
			want: []string{"use Then"},
		},
		"history of something else": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def, 5).When(sell("Ada", 5)).Then() },
			want: []string{"Given: record event 1 of seat 1: int is no event of it"},
		},
		"wanting something else": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(sell("Ada", 5)).Then(5) },
			want: []string{"Then: record event 1 of seat 1: int is no event of it"},
		},
		"no Then": {
			run:  func(t testing.TB) { aggregatetest.Given(t, def).When(sell("Ada", 5)) },
			want: []string{"tests nothing"},
		},
		"an event that lacks what apply uses": {
			run: func(t testing.TB) {
				aggregatetest.Given(t, def).When(func(r *aggregate.Root[seat]) error { return aggregate.Record(r, forgetful{To: "Ada"}) }).
					Then(forgetful{To: "Ada"})
			},
			want: []string{"state by replay", `  -   "holder": ""`, `  +   "holder": "Ada"`},
		},
		"a snapshot that lacks what apply uses": {
			run: func(t testing.TB) {
				aggregatetest.Given(t, def, hidden{Value: "x"}).When(func(r *aggregate.Root[seat]) error { return aggregate.Record(r, hidden{}) }).
					Then(hidden{})
			},
			want: []string{"state by snapshot", `  -   "holder": ""`, `  +   "holder": "x"`},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(tt.run)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("the failure does not tell %q:\n%s", want, got)
				}
			}
		})
	}
}

// run gives what a test that runs f fails with.
func run(f func(testing.TB)) string {
	var fake fakeT
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(&fake)
	}()
	<-done
	for _, cleanup := range fake.cleanups {
		cleanup()
	}
	return fake.failures.String()
}

// fakeT is a test that may fail.
type fakeT struct {
	testing.TB
	failures strings.Builder
	cleanups []func()
}

func (*fakeT) Helper() {}

func (f *fakeT) Cleanup(cleanup func()) { f.cleanups = append(f.cleanups, cleanup) }

func (f *fakeT) Failed() bool { return f.failures.Len() > 0 }

func (f *fakeT) Errorf(format string, args ...any) { fmt.Fprintf(&f.failures, format+"\n", args...) }

func (f *fakeT) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}
