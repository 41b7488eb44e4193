package inbox

import (
	"context"
	"time"
)

// A Hook is told what an [Inbox] does: it implements one or more of the
// interfaces whose names begin with Hook, and [New] refuses one that
// implements none. Hooks are called in the order given, by the goroutine at
// work, after what they tell of has happened; they must be quick and safe for
// use by several goroutines.
type Hook any

// HookHandled is told of each event that was handled.
type HookHandled interface {
	OnHandled(ctx context.Context, e Info)
}

// HookDuplicate is told of each event that came again and was recognised.
type HookDuplicate interface {
	OnDuplicate(ctx context.Context, e Info)
}

// HookRetried is told of each attempt that failed and is followed by another,
// e.Wait later.
type HookRetried interface {
	OnRetried(ctx context.Context, e Info)
}

// HookUnavailable is told when an event must wait because PostgreSQL is away,
// which is no attempt.
type HookUnavailable interface {
	OnUnavailable(ctx context.Context, e Info)
}

// HookDead is told of each event that became a dead letter.
type HookDead interface {
	OnDead(ctx context.Context, e Info)
}

// HookWaiting is told of each event that was put behind a dead letter of its
// key.
type HookWaiting interface {
	OnWaiting(ctx context.Context, e Info)
}

// HookSkipped is told of each event that a [Policy] passed over.
type HookSkipped interface {
	OnSkipped(ctx context.Context, e Info)
}

// An Info tells a hook which event it was and what became of it.
type Info struct {
	ID          string // the CloudEvent's; empty where the record is none
	Type        string
	Topic       string
	Partition   int32
	Offset      int64
	OrderingKey string
	Attempt     int           // from 1; 0 where no handler was called
	Duration    time.Duration // of the attempt, its transaction included
	Wait        time.Duration // until the next attempt
	Err         error         // why it failed or was passed over
}

func isHook(h Hook) bool {
	switch h.(type) {
	case HookHandled, HookDuplicate, HookRetried, HookUnavailable, HookDead, HookWaiting, HookSkipped:
		return true
	}
	return false
}
