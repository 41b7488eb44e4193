package inbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

// TestRevokedWhileAHandlerRuns has a partition move to another member while
// its handler is at work: the handler ends first, its offset is committed, and
// the other member goes on behind it.
func TestRevokedWhileAHandlerRuns(t *testing.T) {
	w := newWorld(t, 2)
	ks := keys(8)
	w.steps(t, 1, 2, ks...)
	entered, release := make(chan string, 100), make(chan struct{})
	config := w.config(t)
	config.CommitEvery = time.Hour // only the rebalance commits
	config.Concurrency = len(ks)   // so that there is work in both partitions
	first, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		entered <- e.Subject
		select {
		case <-release:
			return effect(ctx, tx, e, "first")
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for range ks {
		<-entered
	}
	second, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		return effect(ctx, tx, e, "second")
	})
	// Revoked partitions are out of the first's hands before their handlers end.
	devstacktest.Wait(t, "a partition to be revoked", limit, func() bool { return len(first.Stats().Partitions) == 1 })
	select {
	case <-time.After(300 * time.Millisecond):
	case <-entered:
		t.Error("a handler was begun during the rebalance")
	}
	if n := len(second.Stats().Partitions); n > 0 {
		t.Error("the second member has the partition while the first is at work on it")
	}
	close(release)
	w.wait(t, `select count(*) >= 16 from effects`)
	w.wait(t, `select count(distinct member) = 2 from effects`)
	w.check(t, 2, ks...)
	if n := first.Stats().Duplicates + second.Stats().Duplicates; n > 0 {
		t.Errorf("%d events were delivered again: the finished prefix was not committed", n)
	}
}

// TestRevokedFromAHandlerThatDoesNotEnd has the rebalance go on without it:
// its effect is undone and happens with the other member.
func TestRevokedFromAHandlerThatDoesNotEnd(t *testing.T) {
	w := newWorld(t, 2)
	ks := keys(8)
	w.steps(t, 1, 1, ks...)
	config := w.config(t)
	config.RebalanceGrace, config.Grace = 100*time.Millisecond, 100*time.Millisecond
	config.Concurrency = len(ks)
	var ended atomic.Int32
	first, _ := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if err := effect(ctx, tx, e, "first"); err != nil {
			return err
		}
		<-ctx.Done()
		ended.Add(1)
		return ctx.Err()
	})
	devstacktest.Wait(t, "all handlers to be at work", limit, func() bool { return first.Stats().AtWork == len(ks) })
	w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		return effect(ctx, tx, e, "second")
	})
	w.wait(t, `select count(*) > 0 from effects`)
	if ended.Load() == 0 {
		t.Error("no handler's context ended")
	}
	if s := first.Stats(); s.Retries+s.Dead > 0 {
		t.Errorf("Stats %+v: the end of a handler's context was counted against its event", s)
	}
}

// TestShutdownWhileHandlersRun lets them finish, commits their offsets and
// begins nothing more.
func TestShutdownWhileHandlersRun(t *testing.T) {
	w := newWorld(t, 1)
	w.steps(t, 1, 2, "a", "b", "c")
	config := w.config(t)
	config.CommitEvery, config.Concurrency = time.Hour, 3
	entered, release := make(chan struct{}, 100), make(chan struct{})
	var cut atomic.Int32
	in, stop := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		entered <- struct{}{}
		select {
		case <-release:
			return effect(ctx, tx, e, "")
		case <-ctx.Done():
			cut.Add(1)
			return ctx.Err()
		}
	})
	for range 3 {
		<-entered
	}
	done := make(chan error, 1)
	go func() { done <- stop() }()
	select {
	case err := <-done:
		t.Fatalf("Run returned %v while handlers are at work", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.check(t, 1, "a", "b", "c")
	if at, n := w.committed(t), cut.Load(); at != 3 || n > 0 {
		t.Errorf("offset %d is committed and %d handlers were cut off, want 3 and 0", at, n)
	}
	if s := in.Stats(); s.Handled != 3 || s.Retries+s.Dead+s.Skipped > 0 {
		t.Errorf("Stats %+v, want 3 handled and nothing else", s)
	}
	in, _ = w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error { return effect(ctx, tx, e, "") })
	w.wait(t, `select count(*) >= 6 from effects`)
	w.check(t, 2, "a", "b", "c")
	if n := in.Stats().Duplicates; n > 0 {
		t.Errorf("%d events were delivered again after an orderly stop", n)
	}
}

// TestShutdownEndsWithTheGrace cuts a handler off, which poisons nothing.
func TestShutdownEndsWithTheGrace(t *testing.T) {
	w := newWorld(t, 1)
	w.steps(t, 1, 1, "a")
	config := w.config(t)
	config.Grace, config.MaxAttempts = 50*time.Millisecond, 1
	in, stop := w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error {
		if err := effect(ctx, tx, e, ""); err != nil {
			return err
		}
		<-ctx.Done()
		return errors.Join(errFlaky, ctx.Err())
	})
	devstacktest.Wait(t, "the handler to be at work", limit, func() bool { return in.Stats().AtWork == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := value[int](t, w, `select (select count(*) from inbox_dead) + (select count(*) from inbox) + (select count(*) from effects)`); n != 0 {
		t.Errorf("%d rows of an event that was cut off", n)
	}
	w.start(t, config, func(ctx context.Context, tx pgx.Tx, e inbox.Received[step]) error { return effect(ctx, tx, e, "") })
	w.wait(t, `select count(*) = 1 from effects`)
}
