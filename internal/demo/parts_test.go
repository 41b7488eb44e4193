package demo

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A screen keeps what is written to it and tells who waits.
type screen struct {
	mu      sync.Mutex
	b       strings.Builder
	changed chan struct{}
}

func newScreen() *screen { return &screen{changed: make(chan struct{}, 1)} }

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return s.b.Write(b)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// await gives the text when sub is in it n times.
func (s *screen) await(t *testing.T, sub string, n int) string {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		if text := s.text(); strings.Count(text, sub) >= n {
			return text
		}
		select {
		case <-s.changed:
		case <-limit:
			t.Fatalf("no %d times %q in:\n%q", n, sub, s.text())
		}
	}
}

func TestNewReportsAllProblemsTogether(t *testing.T) {
	_, err := New(Config{Rate: math.NaN(), Timeout: -1, Dir: "."})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"rate: ", "timeout: ", "dir: "} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("error %q does not name %s", err, field)
		}
	}
}

func TestDistribution(t *testing.T) {
	var values []time.Duration
	for i := 100; i > 0; i-- {
		values = append(values, time.Duration(i)*time.Millisecond)
	}
	if got, want := distribution(values), (Distribution{100, 50, 99, 100}); got != want {
		t.Errorf("of 1 to 100 ms: %+v, want %+v", got, want)
	}
	if got, want := distribution(values[:1]), (Distribution{1, 1, 1, 1}); got != want {
		t.Errorf("of 1 ms: %+v, want %+v", got, want)
	}
	if got := distribution(nil); got != (Distribution{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestAcksKeepTheFirstTimeOfTheNewest(t *testing.T) {
	var a acks
	record := func(id string) *kgo.Record {
		return &kgo.Record{Headers: []kgo.RecordHeader{{Key: "ce_type"}, {Key: "ce_id", Value: []byte(id)}}}
	}
	a.OnProduceRecordUnbuffered(record("refused"), kgo.ErrClientClosed)
	a.OnProduceRecordUnbuffered(&kgo.Record{}, nil) // no event, such as a position
	a.OnProduceRecordUnbuffered(record("0"), nil)
	first, ok := a.get("0")
	if !ok || len(a.at) != 1 {
		t.Fatalf("remembered %v, want event 0 alone", a.at)
	}
	a.OnProduceRecordUnbuffered(record("0"), nil)
	if again, _ := a.get("0"); !again.Equal(first) {
		t.Error("a repeated record changed the time")
	}
	for i := range maxAcks {
		a.add(strconv.Itoa(i+1), first)
	}
	if _, ok := a.get("0"); ok || len(a.at) != maxAcks {
		t.Errorf("%d events remembered, with the oldest: %t", len(a.at), ok)
	}
	if _, ok := a.get(strconv.Itoa(maxAcks)); !ok {
		t.Error("the newest is forgotten")
	}
}

func TestSameJSON(t *testing.T) {
	row := map[string]any{"version": 4, "at": time.Unix(0, 0).UTC()}
	for state, want := range map[string]bool{
		`{"at":"1970-01-01T00:00:00Z","version":4}`:           true,
		`{"at":"1970-01-01T00:00:00Z","version":5}`:           false,
		`{"at":"1970-01-01T00:00:00Z"}`:                       false,
		`{"at":"1970-01-01T00:00:00Z","version":4,"more":""}`: false,
	} {
		if same, err := sameJSON(row, []byte(state)); err != nil || same != want {
			t.Errorf("%s: %t, %v; want %t", state, same, err, want)
		}
	}
	if _, err := sameJSON(row, []byte("{")); err == nil {
		t.Error("broken JSON is compared")
	}
}
