package relay

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
)

// A simLedger holds what has committed against what is in Kafka.
type simLedger struct {
	events []*simEvent // by sequence
	byName map[string]*simEvent
	keys   map[[2]int]*simKeyOrder // by topic and key

	done    int     // see published
	stored  lsn.Pos // the furthest position that Kafka has
	repeats int     // events that are in Kafka once more
}

// A simKeyOrder is how far the events of one key of a topic are in Kafka.
type simKeyOrder struct{ committed, reached int }

// committed enters a transaction.
func (s *simulation) committed(c *simCommit) {
	l := &s.ledger
	if l.byName == nil {
		l.byName, l.keys = make(map[string]*simEvent), make(map[[2]int]*simKeyOrder)
	}
	for _, e := range c.events {
		order := l.keys[[2]int{e.topic, e.key}]
		if order == nil {
			order = new(simKeyOrder)
			l.keys[[2]int{e.topic, e.key}] = order
		}
		e.nth = order.committed
		order.committed++
		l.events = append(l.events, e)
		e.sequence = int64(len(l.events))
		l.byName[e.name] = e
	}
}

// readEvent gives the event of a record that a relay hands on, which must be
// as it was written.
func (s *simulation) readEvent(relay *simRelay, r *kgo.Record, log int) *simEvent {
	e := s.ledger.byName[header(r, cloudevent.HeaderID)]
	if e == nil {
		s.violated("%v publishes event %s, which has not committed", relay, header(r, cloudevent.HeaderID))
		return &simEvent{}
	}
	if n, err := strconv.ParseInt(header(r, cloudevent.HeaderSequence), 10, 64); err != nil || n != e.sequence {
		s.violated("%v publishes event %d with sequence %s", relay, e.sequence, header(r, cloudevent.HeaderSequence))
	}
	if string(r.Value) != e.payload || string(r.Key) != simKey(e.key) {
		s.violated("%v publishes event %d with key %q and payload %q, want %q and %q", relay, e.sequence, r.Key, r.Value, simKey(e.key), e.payload)
	}
	switch topic := simTopics()[e.topic]; {
	case log == simLetters && !e.poisoned:
		s.violated("%v sets event %d aside, which nobody refuses", relay, e.sequence)
	case log == simLetters && header(r, headerTopic) != topic, log != simLetters && r.Topic != topic:
		s.violated("%v publishes event %d to topic %s, want %s", relay, e.sequence, r.Topic, topic)
	}
	return e
}

func (s *simulation) readPosition(r *kgo.Record) position.Position {
	p, err := position.Decode(r.Value)
	if err != nil {
		s.violated("a position can't be read: %v", err)
	}
	return p
}

// settled enters a record that is in Kafka for good.
func (s *simulation) settled(r *simRecord) {
	if r.event == nil {
		s.checkPosition(r.position)
		return
	}
	e := r.event
	if e.times++; e.times > 1 {
		s.ledger.repeats++
		if s.plan.once {
			s.violated("event %d is in Kafka twice", e.sequence)
		}
	}
	e.letter = e.letter || r.log == simLetters
	e.durable = true
	order := s.ledger.keys[[2]int{e.topic, e.key}]
	switch {
	case order == nil: // not an event: said already
	case e.nth == order.reached:
		order.reached++
	case e.nth > order.reached:
		s.violated("event %d is in Kafka in front of one with the same key that committed before it", e.sequence)
	}
}

// published gives how many transactions from the log's beginning are in Kafka
// for good.
func (s *simulation) published() int {
	for log := s.postgres.log; s.ledger.done < len(log) && log[s.ledger.done].durable(); {
		s.ledger.done++
	}
	return s.ledger.done
}

func (c *simCommit) durable() bool {
	for _, e := range c.events {
		if !e.durable {
			return false
		}
	}
	return true
}

// checkPosition checks that a position that Kafka has tells of nothing that it
// does not have.
func (s *simulation) checkPosition(p position.Position) {
	s.ledger.stored = max(s.ledger.stored, p.End)
	sequence := int64(0)
	for _, c := range s.postgres.log {
		if c.commit >= p.End && c.commit > p.Commit {
			break
		}
		for i, e := range c.events {
			if p.Partial() && c.commit == p.Commit && int64(i) > p.Index {
				break
			}
			sequence++
			if !e.durable {
				s.violated("position %v, sequence %d, is in Kafka, and event %d is not", p.End, p.Sequence, e.sequence)
				return
			}
		}
	}
	if sequence != p.Sequence {
		s.violated("position %v tells sequence %d, the events up to there are %d", p.End, p.Sequence, sequence)
	}
}

// checkConfirm checks that PostgreSQL is told of nothing that would be lost.
func (s *simulation) checkConfirm(stream *simStream, pos lsn.Pos) {
	if pos < stream.told {
		s.violated("%v tells %v after %v", stream.relay, pos, stream.told)
	}
	if pos > s.ledger.stored {
		s.violated("%v tells %v, the positions topic holds %v", stream.relay, pos, s.ledger.stored)
	}
	if log, n := s.postgres.log, s.published(); n < len(log) && log[n].commit < pos {
		s.violated("%v tells %v, transaction %v is not in Kafka", stream.relay, pos, log[n].commit)
	}
}

// checkBound checks that no more is buffered than may be.
func (s *simulation) checkBound(p *simProducer, last *kgo.Record) {
	if limit := p.relay.relay.cfg.MaxBufferBytes; p.bytes > limit && p.bytes > size(last) {
		s.violated("%v has %d bytes on their way, the bound is %d", p.relay, p.bytes, limit)
	}
}
