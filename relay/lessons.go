package relay

import (
	"maps"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// lessons are what sessions learn about refused records, for the sessions
// behind them. The zero lessons is ready to use, and safe for concurrent use.
type lessons struct {
	mu       sync.Mutex
	suspect  suspect
	verdicts map[string]verdict  // by ce_position
	topics   map[string]struct{} // that have been compared
}

// A suspect is a batch that was refused.
type suspect struct {
	topic     string
	partition int32
	first     int64 // sequence of its first record; 0: there is no suspect
	bytes     int64 // as many as the batch can have held
}

// A verdict is about one record, which was refused alone.
type verdict struct {
	id       string
	sequence int64
	err      error
}

// learned gives what a session begins with.
func (l *lessons) learned() (suspect, map[string]verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.suspect, maps.Clone(l.verdicts)
}

// suspected remembers the batch that r is the first record of.
func (l *lessons) suspected(r *kgo.Record, sequence, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspect = suspect{topic: r.Topic, partition: r.Partition, first: sequence, bytes: bytes}
}

func (l *lessons) acquit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspect = suspect{}
}

// convicted remembers the record at position, and forgets the batch.
func (l *lessons) convicted(position string, v verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspect = suspect{}
	if l.verdicts == nil {
		l.verdicts = make(map[string]verdict)
	}
	l.verdicts[position] = v
}

// served forgets verdicts about records up to sequence, whose dead letters the
// stored position covers.
func (l *lessons) served(sequence int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.verdicts, func(_ string, v verdict) bool { return v.sequence <= sequence })
}

// compared reports whether topic has been compared before.
func (l *lessons) compared(topic string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.topics[topic]; ok {
		return true
	}
	if l.topics == nil {
		l.topics = make(map[string]struct{})
	}
	l.topics[topic] = struct{}{}
	return false
}
