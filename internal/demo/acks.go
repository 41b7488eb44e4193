package demo

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// maxAcks bounds what a demo that runs for days remembers.
const maxAcks = 20_000

// acks remembers when Kafka acknowledged each of the newest events. It is a
// hook of the relay's Kafka client; the zero value is ready.
type acks struct {
	mu   sync.Mutex
	at   map[string]time.Time // by event id
	ring []string             // ids in the order of their coming, then overwritten
	next int
}

// OnProduceRecordUnbuffered is called as a record is done with, err being nil
// where it was acknowledged.
func (a *acks) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	if err != nil {
		return
	}
	now := time.Now()
	for _, h := range r.Headers {
		if h.Key == cloudevent.HeaderID {
			a.add(string(h.Value), now)
			return
		}
	}
}

// add keeps the first time of an id: a repeated record is no later event.
func (a *acks) add(id string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = make(map[string]time.Time)
	}
	if _, ok := a.at[id]; ok {
		return
	}
	a.at[id] = at
	if len(a.ring) < maxAcks {
		a.ring = append(a.ring, id)
		return
	}
	delete(a.at, a.ring[a.next])
	a.ring[a.next] = id
	a.next = (a.next + 1) % maxAcks
}

func (a *acks) get(id string) (at time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok = a.at[id]
	return at, ok
}
