package relay

import (
	"context"
	"sync"
)

// A budget bounds the bytes that are read and not yet acknowledged. take and
// idle are for one goroutine, give for any.
type budget struct {
	limit int64

	mu    sync.Mutex
	used  int64
	freed chan struct{} // made by a take that waits, closed by the next give
}

// take waits until n bytes are free, or everything is: a record larger than
// the budget goes alone. It returns early only when ctx ends.
func (b *budget) take(ctx context.Context, n int64) error {
	for {
		b.mu.Lock()
		if b.used == 0 || b.used+n <= b.limit {
			b.used += n
			b.mu.Unlock()
			return nil
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// idle waits until nothing is in use. It returns early only when ctx ends.
func (b *budget) idle(ctx context.Context) error {
	for {
		b.mu.Lock()
		if b.used == 0 {
			b.mu.Unlock()
			return nil
		}
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// give returns n bytes.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	// Half free before a waiting take goes on: waking it for every record
	// would cost a switch each.
	if b.freed != nil && b.used <= b.limit/2 {
		close(b.freed)
		b.freed = nil
	}
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
