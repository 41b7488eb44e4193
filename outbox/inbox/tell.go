package inbox

import (
	"context"
	"sync/atomic"
	"time"
)

// A teller counts what happens and tells the hooks.
type teller struct {
	onHandled     []HookHandled
	onDuplicate   []HookDuplicate
	onRetried     []HookRetried
	onUnavailable []HookUnavailable
	onDead        []HookDead
	onWaiting     []HookWaiting
	onSkipped     []HookSkipped

	counts struct{ handled, duplicates, retries, unavailable, dead, waiting, skipped atomic.Int64 }
}

func (t *teller) use(hooks []Hook) {
	for _, hook := range hooks {
		pick(&t.onHandled, hook)
		pick(&t.onDuplicate, hook)
		pick(&t.onRetried, hook)
		pick(&t.onUnavailable, hook)
		pick(&t.onDead, hook)
		pick(&t.onWaiting, hook)
		pick(&t.onSkipped, hook)
	}
}

func pick[H any](to *[]H, hook Hook) {
	if h, ok := hook.(H); ok {
		*to = append(*to, h)
	}
}

func (t *teller) handled(ctx context.Context, e *event, attempt int, begun time.Time) {
	t.counts.handled.Add(1)
	for _, h := range t.onHandled {
		h.OnHandled(ctx, e.info(attempt, begun, 0, nil))
	}
}

func (t *teller) duplicate(ctx context.Context, e *event, attempt int, begun time.Time) {
	t.counts.duplicates.Add(1)
	for _, h := range t.onDuplicate {
		h.OnDuplicate(ctx, e.info(attempt, begun, 0, nil))
	}
}

func (t *teller) retried(ctx context.Context, e *event, attempt int, begun time.Time, wait time.Duration, err error) {
	t.counts.retries.Add(1)
	for _, h := range t.onRetried {
		h.OnRetried(ctx, e.info(attempt, begun, wait, err))
	}
}

func (t *teller) unavailable(ctx context.Context, e *event, attempt int, begun time.Time, wait time.Duration, err error) {
	t.counts.unavailable.Add(1)
	for _, h := range t.onUnavailable {
		h.OnUnavailable(ctx, e.info(attempt, begun, wait, err))
	}
}

func (t *teller) dead(ctx context.Context, e *event, attempt int, begun time.Time, err error) {
	t.counts.dead.Add(1)
	for _, h := range t.onDead {
		h.OnDead(ctx, e.info(attempt, begun, 0, err))
	}
}

func (t *teller) waiting(ctx context.Context, e *event, attempt int, begun time.Time, err error) {
	t.counts.waiting.Add(1)
	for _, h := range t.onWaiting {
		h.OnWaiting(ctx, e.info(attempt, begun, 0, err))
	}
}

func (t *teller) skipped(ctx context.Context, e *event, attempt int, begun time.Time, err error) {
	t.counts.skipped.Add(1)
	for _, h := range t.onSkipped {
		h.OnSkipped(ctx, e.info(attempt, begun, 0, err))
	}
}

func (e *event) info(attempt int, begun time.Time, wait time.Duration, err error) Info {
	return Info{
		ID: e.ID, Type: e.Type, Topic: e.record.Topic, Partition: e.record.Partition, Offset: e.record.Offset,
		OrderingKey: e.key, Attempt: attempt, Duration: time.Since(begun), Wait: wait, Err: err,
	}
}
