package inbox

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/outbox"
)

// TestKafkaAway has nobody answer, and a broker that hangs up: Run waits, asks
// again now and then, and stops when it is told to.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var asked atomic.Int32
	twice := make(chan struct{})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
			if asked.Add(1) == 2 {
				close(twice)
			}
		}
	}()
	in, err := New(Config{Brokers: []string{"127.0.0.1:1", listener.Addr().String()}, Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	typed := outbox.Typed[struct{}]{Name: "T", Topic: "t", AggregateType: "a"}
	if err := HandleFunc(in, typed, func(context.Context, Received[struct{}]) error { return nil }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	<-twice
	if err := in.Run(ctx); err == nil {
		t.Error("a second Run at once is not refused")
	}
	if err := HandleFunc(in, outbox.Typed[int]{Name: "U", Topic: "t", AggregateType: "a"}, func(context.Context, Received[int]) error { return nil }); err == nil {
		t.Error("a handler that comes after Run is not refused")
	}
	cancel()
	begun := time.Now()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run goes on 30s after its context has ended")
	}
	if n, took := asked.Load(), time.Since(begun); n > 100 {
		t.Errorf("the broker was asked %d times within moments (%v)", n, took)
	}
}
