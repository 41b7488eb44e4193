package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// errGrace is the cause with which handlers' contexts end when Run must.
var errGrace = errors.New("the inbox stops, and its grace is over")

// Run consumes until ctx ends, which is the normal way to stop and gives nil,
// or until an event meets the policy [Fail]. PostgreSQL and Kafka may be away
// for as long as they like: Run waits for them.
//
// When ctx ends nothing new begins; handlers at work have [Config.Grace] to
// end, what is finished is committed, and what is not is handled after the
// next start. Run returns when every goroutine that it started has, so a
// handler that heeds no context keeps it.
//
// A finished Run may be followed by another; two at once are refused.
func (in *Inbox) Run(ctx context.Context) error {
	if !in.running.CompareAndSwap(false, true) {
		return errors.New("inbox: Run is at work already")
	}
	defer in.running.Store(false)
	topics := in.consumed()
	if len(topics) == 0 {
		return errors.New("inbox: nothing to consume: call Handle, or set Config.Topics")
	}
	if err := in.run(ctx, topics); err != nil {
		return fmt.Errorf("inbox %s: %w", in.cfg.Group, err)
	}
	return nil
}

func (in *Inbox) consumed() []string {
	if len(in.cfg.Topics) > 0 {
		return in.cfg.Topics
	}
	topics := slices.Clone(in.topics)
	slices.Sort(topics)
	return slices.Compact(topics)
}

// A fatalError is why Run ends by itself.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

func (in *Inbox) run(ctx context.Context, topics []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) { cancel(&fatalError{err}) }
	work, release := in.graceful(ctx)
	defer release()
	c, err := newConsumer(work, in, topics)
	if err != nil {
		return err
	}
	in.consumer.Store(c)
	// Leaving the group gives the partitions to the others at once.
	defer c.client.CloseAllowingRebalance()

	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		c.sched.stop()
	})
	wg.Go(func() { c.fetch(ctx) })
	wg.Go(func() { c.commit.run(ctx, in.cfg.CommitEvery) })
	for range in.cfg.Concurrency {
		wg.Go(func() { c.run(fail) })
	}
	if in.cfg.Pool != nil {
		wg.Go(func() { failing(fail, in.redrive(ctx)) })
	}
	if in.cfg.Pool != nil && in.cfg.Window > 0 {
		wg.Go(func() { failing(fail, in.keepWindow(ctx)) })
	}
	wg.Wait()
	c.commit.partitions(ctx, nil)

	if fatal, ok := errors.AsType[*fatalError](context.Cause(ctx)); ok {
		return fatal.error
	}
	return nil
}

func failing(fail func(error), err error) {
	if err != nil {
		fail(err)
	}
}

func (in *Inbox) keepWindow(ctx context.Context) error {
	w, err := NewWindow(in.cfg.window())
	if err != nil {
		return err
	}
	return w.Run(ctx)
}

// graceful gives a context that ends the grace after ctx does, and a function
// that ends it at once and must be called.
func (in *Inbox) graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-work.Done():
			return
		}
		timer := time.NewTimer(in.cfg.Grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(errGrace)
		case <-work.Done():
		}
	})
	return work, func() {
		cancel(nil)
		wg.Wait()
	}
}
