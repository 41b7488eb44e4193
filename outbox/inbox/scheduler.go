package inbox

import (
	"context"
	"sync"
	"time"
)

// A scheduler gives items to workers: of each ordering key one at a time and
// in order, of different keys as many as there are workers. A key in back-off
// holds none. All methods may be called from any goroutine.
type scheduler struct {
	mu    sync.Mutex
	more  sync.Cond // of mu: ready has grown, or stopped is set
	room  sync.Cond // of mu: ready has shrunk, or stopped is set
	keys  map[string]*queue
	ready list
	parts map[tp]*partition

	limit   int // of ready queues, above which nothing more is fetched
	stopped bool

	atWork int // items
	rest   int // queues in back-off
	held   int // queues that are tried for ever
}

type tp struct {
	topic     string
	partition int32
}

func newScheduler(limit int) *scheduler {
	s := &scheduler{keys: make(map[string]*queue), parts: make(map[tp]*partition), limit: limit}
	s.more.L, s.room.L = &s.mu, &s.mu
	return s
}

// add takes items of one partition, in the order of their offsets; some may be
// done already. Items of a dropped partition are let go.
func (s *scheduler) add(p *partition, items []item, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dropped {
		return
	}
	p.end = end
	for n := range items {
		i := &items[n]
		p.pending = append(p.pending, i)
		if i.done {
			continue
		}
		q := s.keys[i.event.key]
		if q == nil {
			q = &queue{key: i.event.key}
			s.keys[q.key] = q
		}
		q.items = append(q.items, i)
		if q.state == idle {
			s.push(q)
		}
	}
	p.advance()
}

// push makes q ready.
func (s *scheduler) push(q *queue) {
	q.state = ready
	s.ready.push(q)
	s.more.Signal()
}

// next waits for an item that may be worked on and gives it, or nil when the
// scheduler has stopped. Give it back with finish.
func (s *scheduler) next() *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for s.ready.len() == 0 && !s.stopped {
			s.more.Wait()
		}
		if s.stopped {
			return nil
		}
		q := s.ready.pop()
		if s.ready.len() < s.limit {
			s.room.Broadcast()
		}
		q.prune()
		if len(q.items) == 0 {
			s.remove(q)
			continue
		}
		i := q.items[0]
		q.state, i.working = working, true
		i.part.working++
		s.atWork++
		return i
	}
}

// remove forgets a queue that is empty.
func (s *scheduler) remove(q *queue) {
	s.hold(q, false)
	delete(s.keys, q.key)
}

func (s *scheduler) hold(q *queue, held bool) {
	if q.held != held {
		q.held = held
		s.held += map[bool]int{true: 1, false: -1}[held]
	}
}

// A verdict is what a worker found about an item.
type verdict struct {
	done  bool          // it need not come again
	again bool          // it is to be tried again, after wait; neither: it is let go
	wait  time.Duration // before the next try
	held  bool          // and so for ever
}

// finish takes an item back from a worker, and reports whether the fetching of
// its partition may have to go on.
func (s *scheduler) finish(i *item, v verdict) (paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.keys[i.event.key]
	i.working = false
	i.part.working--
	s.atWork--
	s.hold(q, v.held)
	switch {
	case v.again && !i.part.dropped && !s.stopped:
		if v.wait > 0 {
			s.retire(q, v.wait)
			return false
		}
	case v.done:
		i.finish()
		q.pop()
		i.part.advance()
	default:
		q.pop()
	}
	i.part.settle()
	s.proceed(q)
	return i.part.paused
}

// proceed goes on with a queue that nobody works on.
func (s *scheduler) proceed(q *queue) {
	q.prune()
	if len(q.items) == 0 {
		s.remove(q)
		return
	}
	s.push(q)
}

// retire lets q rest, with no worker.
func (s *scheduler) retire(q *queue, wait time.Duration) {
	q.state = resting
	s.rest++
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if q.timer == timer {
			s.resume(q)
		}
	})
	q.timer = timer
}

// resume goes on with a queue that rests.
func (s *scheduler) resume(q *queue) {
	q.wake()
	s.rest--
	s.proceed(q)
}

// waitForRoom returns when more should be fetched, and reports false when the
// scheduler has stopped.
func (s *scheduler) waitForRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ready.len() >= s.limit && !s.stopped {
		s.room.Wait()
	}
	return !s.stopped
}

// drop takes partitions away: what has not begun is let go, what is at work
// goes on. It gives those that it knew.
func (s *scheduler) drop(parts []tp) []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	var dropped []*partition
	for _, id := range parts {
		p := s.parts[id]
		if p == nil {
			continue
		}
		delete(s.parts, id)
		p.drop()
		dropped = append(dropped, p)
		for _, i := range p.pending {
			if i.done || i.working {
				continue
			}
			// Another partition's events may wait for its back-off.
			if q := s.keys[i.event.key]; q != nil && q.state == resting && q.items[0] == i {
				s.resume(q)
			}
		}
	}
	return dropped
}

// partition gives the one of that name, which it makes where there is none.
func (s *scheduler) partition(ctx context.Context, topic string, id int32) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parts[tp{topic, id}]
	if p == nil {
		p = newPartition(ctx, topic, id)
		s.parts[tp{topic, id}] = p
	}
	return p
}

// stop has no worker begin anything more.
func (s *scheduler) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, q := range s.keys {
		q.wake()
	}
	s.more.Broadcast()
	s.room.Broadcast()
}
