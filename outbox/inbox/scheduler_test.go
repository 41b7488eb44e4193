package inbox

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// A model says what a scheduler must do: it keeps for each key what came and
// is neither done nor let go.
type model struct {
	s       *scheduler
	parts   []*partition // assigned
	next    []int64      // offset to be fetched of each
	keys    map[string][]*item
	working []*item
	dropped []*partition
	flight  map[*partition][]*item // all that were added, in order
}

func newModel(t *testing.T) *model {
	m := &model{s: newScheduler(1000), keys: make(map[string][]*item), flight: make(map[*partition][]*item)}
	for i := range 3 {
		m.parts = append(m.parts, m.s.partition(t.Context(), "t", int32(i)))
		m.next = append(m.next, 0)
	}
	return m
}

func (m *model) add(t *rapid.T) {
	n := rapid.IntRange(0, len(m.parts)-1).Draw(t, "partition")
	names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 5).Draw(t, "keys")
	items := make([]item, len(names))
	for i, key := range names {
		items[i] = item{event: event{key: key, record: &kgo.Record{}}, part: m.parts[n], offset: m.next[n]}
		m.next[n] += rapid.Int64Range(1, 3).Draw(t, "gap") // compaction leaves holes
		if rapid.IntRange(0, 5).Draw(t, "skipped") == 0 {
			items[i].finish()
		} else {
			m.keys[key] = append(m.keys[key], &items[i])
		}
		m.flight[m.parts[n]] = append(m.flight[m.parts[n]], &items[i])
	}
	m.s.add(m.parts[n], items, 0)
}

func (m *model) take(t *rapid.T) {
	if m.s.ready.len() == 0 || !slices.ContainsFunc(m.s.ready.all(), func(q *queue) bool { q.prune(); return len(q.items) > 0 }) {
		t.Skip("nothing is ready")
	}
	i := m.s.next()
	if i.part.dropped {
		t.Fatalf("offset %d of a dropped partition is begun", i.offset)
	}
	for _, w := range m.working {
		if w.event.key == i.event.key {
			t.Fatalf("two of key %s are at work", i.event.key)
		}
	}
	if first := m.keys[i.event.key][0]; first != i {
		t.Fatalf("key %s: offset %d is begun before %d", i.event.key, i.offset, first.offset)
	}
	m.working = append(m.working, i)
}

func (m *model) finish(t *rapid.T) {
	if len(m.working) == 0 {
		t.Skip("nothing is at work")
	}
	n := rapid.IntRange(0, len(m.working)-1).Draw(t, "item")
	i := m.working[n]
	m.working = slices.Delete(m.working, n, n+1)
	key := i.event.key
	v := rapid.SampledFrom([]verdict{{done: true}, {done: true}, {again: true}, {again: true, wait: time.Hour}, {again: true, wait: time.Hour, held: true}}).Draw(t, "verdict")
	m.s.finish(i, v)
	if v.done || i.part.dropped {
		m.keys[key] = slices.DeleteFunc(m.keys[key], func(other *item) bool { return other == i })
	}
}

// wake does what the timer of a resting key does.
func (m *model) wake(t *rapid.T) {
	var found []string
	for key, q := range m.s.keys {
		if q.state == resting {
			found = append(found, key)
		}
	}
	if len(found) == 0 {
		t.Skip("no key rests")
	}
	slices.Sort(found)
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.resume(m.s.keys[rapid.SampledFrom(found).Draw(t, "key")])
}

// drop takes a partition away and gives it back, from where it was finished.
func (m *model) drop(t *rapid.T) {
	n := rapid.IntRange(0, len(m.parts)-1).Draw(t, "partition")
	p := m.parts[n]
	if got := m.s.drop([]tp{{p.topic, p.id}}); len(got) != 1 || got[0] != p {
		t.Fatalf("drop gave %v", got)
	}
	m.dropped = append(m.dropped, p)
	for key := range m.keys {
		m.keys[key] = slices.DeleteFunc(m.keys[key], func(i *item) bool { return i.part == p && !slices.Contains(m.working, i) })
	}
	m.next[n] = p.next.Offset
	m.parts[n] = m.s.partition(p.ctx, p.topic, p.id)
	m.parts[n].next = p.next
}

// check compares the scheduler with what is known of it.
func (m *model) check(t *rapid.T) {
	for p, items := range m.flight {
		var prefix int64
		for _, i := range items {
			if !i.done {
				break
			}
			prefix = i.offset + 1
		}
		if prefix > 0 && p.next.Offset != prefix {
			t.Fatalf("partition %d: %d is to be committed, and the finished prefix ends at %d", p.id, p.next.Offset, prefix)
		}
	}
	for _, p := range m.dropped {
		quiet := !slices.ContainsFunc(m.working, func(i *item) bool { return i.part == p })
		select {
		case <-p.quiet:
			if !quiet {
				t.Fatal("a dropped partition is quiet with items at work")
			}
		default:
			if quiet {
				t.Fatal("a dropped partition has nothing at work and is not quiet")
			}
		}
	}
	rest, held := 0, 0
	for _, q := range m.s.keys {
		if q.state == resting {
			rest++
			if q.items[0].gone() {
				t.Fatalf("key %s rests for an event that has gone", q.key)
			}
		}
		if q.held {
			held++
		}
	}
	if m.s.atWork != len(m.working) || m.s.rest != rest || m.s.held != held {
		t.Fatalf("%d at work, %d resting, %d held; counted %d, %d, %d", len(m.working), rest, held, m.s.atWork, m.s.rest, m.s.held)
	}
}

// drain finishes everything and finds nothing left.
func (m *model) drain(t *rapid.T) {
	for {
		m.s.mu.Lock()
		for _, q := range m.s.keys {
			if q.state == resting {
				m.s.resume(q)
			}
		}
		m.s.mu.Unlock()
		for _, i := range m.working {
			m.s.finish(i, verdict{done: true})
		}
		m.working = nil
		if len(m.s.keys) == 0 {
			break
		}
		live := false
		for _, q := range m.s.ready.all() {
			q.prune()
			live = live || len(q.items) > 0
		}
		if !live {
			break
		}
		m.working = append(m.working, m.s.next())
	}
	for _, p := range m.parts {
		if len(p.pending) > 0 {
			t.Fatalf("partition %d: %d items are left", p.id, len(p.pending))
		}
	}
}

// all are the queues in the list.
func (l *list) all() []*queue { return append(slices.Clone(l.front), l.back...) }

func TestScheduler(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t)
		rt.Repeat(map[string]func(*rapid.T){"": m.check, "add": m.add, "take": m.take, "finish": m.finish, "wake": m.wake, "drop": m.drop})
		m.drain(rt)
	})
}

// TestRest has a key rest as long as it must, and not longer.
func TestRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(10)
		p := s.partition(t.Context(), "t", 0)
		s.add(p, []item{{event: event{key: "a"}, part: p}}, 1)
		begun := time.Now()
		s.finish(s.next(), verdict{again: true, wait: time.Minute})
		i := s.next()
		if got := time.Since(begun); got != time.Minute {
			t.Errorf("the key rested %v, want 1m", got)
		}
		s.finish(i, verdict{again: true, wait: time.Minute})
		s.stop()
		if i := s.next(); i != nil {
			t.Error("a stopped scheduler gives an item")
		}
	})
}

// TestRoom has fetching wait until workers have taken enough.
func TestRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler(2)
		p := s.partition(t.Context(), "t", 0)
		s.add(p, []item{{event: event{key: "a"}, part: p}, {event: event{key: "b"}, part: p}}, 2)
		room := make(chan bool, 1)
		go func() { room <- s.waitForRoom() }()
		synctest.Wait()
		if len(room) > 0 {
			t.Fatal("there is room with two ready keys of two")
		}
		s.finish(s.next(), verdict{done: true})
		if !<-room {
			t.Error("no room in a scheduler that goes on")
		}
		s.stop()
		if s.waitForRoom() {
			t.Error("room in a stopped scheduler")
		}
	})
}

func TestListIsFirstInFirstOut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var l list
		var want []*queue
		t.Repeat(map[string]func(*rapid.T){
			"push": func(*rapid.T) {
				q := &queue{key: fmt.Sprint(len(want))}
				l.push(q)
				want = append(want, q)
			},
			"pop": func(t *rapid.T) {
				if len(want) == 0 {
					t.Skip("it is empty")
				}
				if got := l.pop(); got != want[0] {
					t.Fatalf("popped %s, want %s", got.key, want[0].key)
				}
				want = want[1:]
			},
			"": func(t *rapid.T) {
				if l.len() != len(want) {
					t.Fatalf("len %d, want %d", l.len(), len(want))
				}
			},
		})
	})
}
