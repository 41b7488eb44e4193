package archive

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

func TestNewReportsAllProblemsTogether(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Topics: "(", BatchRecords: -1, BatchBytes: 48_000_001, Linger: -1, TopicsEvery: 1, RetryEvery: -1, SessionTimeout: 1,
	})
	if err == nil {
		t.Fatal("a configuration without anything right is accepted")
	}
	for _, field := range []string{"brokers:", "mongo:", "topics:", "batch-records:", "batch-bytes:", "linger:", "topics-every:", "retry-every:", "session-timeout:"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("error %q does not name %s", err, field)
		}
	}
}

func TestNewFillsInDefaults(t *testing.T) {
	t.Parallel()
	a, err := New(Config{Brokers: []string{"127.0.0.1:1"}, MongoURI: "mongodb://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if a.cfg.Database != "eventstore" || a.cfg.Group != "archive" || a.cfg.Topics != "^[^_]" || a.cfg.Linger != 10*time.Millisecond {
		t.Errorf("defaults are %+v", a.cfg)
	}
	if err := a.Ready(t.Context()); err == nil {
		t.Error("ready without running")
	}
}

func TestOffsets(t *testing.T) {
	t.Parallel()
	var o offsets
	o.forget(map[string][]int32{"none": {1}}) // before anything was written
	o.written([]*kgo.Record{{Topic: "a", Offset: 4}, {Topic: "a", Offset: 5}, {Topic: "a", Partition: 1, Offset: 0}, {Topic: "b", Offset: 9, LeaderEpoch: 3}})
	o.forget(map[string][]int32{"a": {1}})
	got := o.uncommitted()
	if len(got) != 2 || len(got["a"]) != 1 || got["a"][0].Offset != 6 || got["b"][0] != (kgo.EpochOffset{Epoch: 3, Offset: 10}) {
		t.Errorf("uncommitted = %v, want a/0 at 6 and b/0 at 10 of epoch 3", got)
	}
	if !o.pending() {
		t.Error("nothing is pending before the commit")
	}
	o.committed()
	if o.pending() || len(o.uncommitted()) != 0 {
		t.Error("something is pending after the commit")
	}
	if got := o.behind("a", 0, 3) + o.behind("a", 1, 4); got != 3+7 {
		t.Errorf("lag adds up to %d, want 3 and then 7", got)
	}
	o.forget(map[string][]int32{"a": {0}})
	if got := o.behind("a", 1, 1); got != 1 {
		t.Errorf("lag = %d after the other partition has gone, want 1", got)
	}
}

func testWriter(t *testing.T) *writer {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return &writer{metrics: m, log: slog.New(slog.DiscardHandler), cfg: Config{RetryEvery: 100 * time.Millisecond}}
}

func TestRetryPausesLongerAndLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		err := testWriter(t).retry(t.Context(), "test", func(context.Context) error {
			at = append(at, time.Since(start))
			if len(at) < 6 {
				return errors.New("connection refused")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, milliseconds := range []int{0, 20, 60, 140, 240, 340} {
			want := time.Duration(milliseconds) * time.Millisecond
			if at[i] != want {
				t.Errorf("attempt %d after %v, want %v", i, at[i], want)
			}
		}
	})
}

func TestRetryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		err := testWriter(t).retry(ctx, "test", func(context.Context) error { return errors.New("connection refused") })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("got %v after %v, want the end of the context after an hour", err, time.Since(start))
		}
	})
}

func TestRetryBoundsAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		start := time.Now()
		err := testWriter(t).retry(t.Context(), "test", func(ctx context.Context) error {
			if attempts++; attempts > 1 {
				return nil
			}
			<-ctx.Done() // a server that never answers
			return ctx.Err()
		})
		if err != nil || attempts != 2 || time.Since(start) != attemptTimeout+firstPause {
			t.Errorf("got %v after %d attempts and %v", err, attempts, time.Since(start))
		}
	})
}

func TestLasting(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want bool
	}{
		"no answer":            {errors.New("connection refused"), false},
		"out of time":          {context.DeadlineExceeded, false},
		"not authorized":       {mongo.CommandError{Code: 13}, true},
		"stepped down":         {mongo.CommandError{Code: 10107}, false},
		"says to retry":        {mongo.CommandError{Code: 1, Labels: []string{"RetryableWriteError"}}, false},
		"network":              {mongo.CommandError{Labels: []string{"NetworkError"}}, false},
		"overloaded":           {mongo.CommandError{Code: 462, Labels: []string{"SystemOverloadedError"}}, false},
		"majority not reached": {&mongo.WriteConcernError{Code: 64}, false},
		"no such concern":      {&mongo.WriteConcernError{Code: 79}, true},
		"concern not allowed":  {&mongo.WriteConcernError{Code: 2}, true},
		"cannot make an index": {mongo.CommandError{Code: 85}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := lasting(tt.err); got != tt.want {
				t.Errorf("lasting(%v) = %t, want %t", tt.err, got, tt.want)
			}
		})
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	for _, version := range []int64{1, 42, 1<<63 - 1} {
		got, err := parseCursor(formatCursor(version))
		if err != nil || got != version {
			t.Errorf("the cursor of %d reads as %d, %v", version, got, err)
		}
	}
	for _, bad := range []string{"x", "!", "djE6", "djE6LTE", formatCursor(0), formatCursor(7) + "=", formatCursor(7)[:5]} {
		if got, err := parseCursor(bad); err == nil && formatCursor(got) != bad {
			t.Errorf("cursor %q reads as %d", bad, got)
		}
	}
	if _, err := parseCursor("djE6LTE"); !errors.Is(err, ErrCursor) {
		t.Errorf("a negative version gives %v, want ErrCursor", err)
	}
}

func TestQuarantineID(t *testing.T) {
	t.Parallel()
	a := &kgo.Record{Topic: "t", Partition: 1, Offset: 2, Key: []byte("k"), Value: []byte("v")}
	b := &kgo.Record{Topic: "t", Partition: 1, Offset: 2, Key: []byte("kv")}
	again := *a
	if quarantineID(a) != quarantineID(&again) || !strings.HasPrefix(quarantineID(a), "t/1/2/") {
		t.Errorf("id = %q, want t/1/2/… every time", quarantineID(a))
	}
	if quarantineID(a) == quarantineID(b) {
		t.Error("other content at the same offset has the same id")
	}
}
