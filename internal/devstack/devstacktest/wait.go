package devstacktest

import (
	"testing"
	"time"
)

// Wait returns when done does, and fails the test when that takes longer than
// within. It is for what gives no signal, and asks every few milliseconds.
func Wait(t testing.TB, what string, within time.Duration, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", within, what)
		}
	}
}
