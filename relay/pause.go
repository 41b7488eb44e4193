package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A brake stops the reader between two messages of the stream. The zero brake
// is released; all methods are for any goroutine.
type brake struct {
	pulled atomic.Bool // what the reader looks at for each message

	mu       sync.Mutex
	since    time.Time
	released chan struct{} // closed by release
}

func (b *brake) pull() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pulled.Load() {
		return
	}
	b.since, b.released = time.Now(), make(chan struct{})
	b.pulled.Store(true)
}

func (b *brake) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pulled.CompareAndSwap(true, false) {
		close(b.released)
	}
}

// held says since when the brake is pulled.
func (b *brake) held() (since time.Time, pulled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since, b.pulled.Load()
}

// wait returns once the brake is released, or ctx ends.
func (b *brake) wait(ctx context.Context) {
	if !b.pulled.Load() {
		return
	}
	b.mu.Lock()
	released := b.released
	b.mu.Unlock()
	select {
	case <-released:
	case <-ctx.Done():
	}
}

// Pause makes the relay read nothing further, from the next message of the
// stream on, until [Relay.Resume]: also a relay that is a standby now, and one
// whose Run has not begun. What is read goes on to Kafka and is confirmed, but
// a transaction that was being read stays unconfirmed. The slot stays this
// relay's and keeps the write-ahead log.
//
// It ends with the process: nothing of it is stored.
func (r *Relay) Pause() { r.brake.pull() }

// Resume ends a [Relay.Pause]. Without one it does nothing.
func (r *Relay) Resume() { r.brake.release() }
