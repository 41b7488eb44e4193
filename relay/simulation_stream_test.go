package relay

import (
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/wal"
)

// A simStream is a [stream], both its ends and what is between.
type simStream struct {
	sim      *simulation
	relay    *simRelay
	database *simDatabase
	key      int

	// The server's.
	from      lsn.Pos
	next      int     // of the log
	within    int     // of its messages
	sent      lsn.Pos // keepalives up to it
	described bool    // the tables have been
	heard     time.Time
	lost      error // the server has ended it, and why

	// On the way.
	messages []wal.Message
	statuses []lsn.Pos
	asked    bool // the client wants an answer

	// The client's.
	told        lsn.Pos
	buffer      []byte
	waiting     chan struct{} // made by a Next that waits
	broken      error         // the client knows
	interrupted bool
	left        bool
}

// Next implements stream. What was there before an interruption still comes.
// The data is written over by the next call.
func (s *simStream) Next() (wal.Message, error) {
	for {
		s.sim.mu.Lock()
		for i := range s.buffer {
			s.buffer[i] = 0xff
		}
		switch {
		case s.relay.dead:
			s.sim.mu.Unlock()
			return wal.Message{}, errSimDead
		case len(s.messages) > 0:
			m := s.messages[0]
			s.messages = s.messages[1:]
			if m.Data != nil {
				s.buffer = append(s.buffer[:0], m.Data...)
				m.Data = s.buffer
			}
			s.sim.mu.Unlock()
			return m, nil
		case s.interrupted:
			s.sim.mu.Unlock()
			return wal.Message{}, wal.ErrInterrupted
		case s.broken != nil:
			s.sim.mu.Unlock()
			return wal.Message{}, s.broken
		}
		waiting := make(chan struct{})
		s.waiting = waiting
		s.sim.mu.Unlock()
		<-waiting
	}
}

// wake has Next look again.
func (s *simStream) wake() {
	if s.waiting != nil {
		close(s.waiting)
		s.waiting = nil
	}
}

// Confirm implements stream. It returns when the status is on its way.
func (s *simStream) Confirm(pos lsn.Pos, reply bool) error {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	switch {
	case s.relay.dead:
		return errSimDead
	case s.broken != nil:
		return s.broken
	}
	s.sim.checkConfirm(s, pos)
	if pos != s.told {
		s.sim.say("%v tells %v", s.relay, pos)
	}
	s.told = pos
	s.statuses = append(s.statuses, pos)
	s.asked = s.asked || reply
	return nil
}

// Interrupt implements stream.
func (s *simStream) Interrupt() {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	s.interrupted = true
	s.wake()
}

// Close implements stream. The server lets go of the slot a moment later.
func (s *simStream) Close() error {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	s.left = true
	return nil
}

// hear has the server read the next status.
func (s *simStream) hear() {
	s.sim.postgres.confirm(s.statuses[0])
	s.statuses = s.statuses[1:]
	s.heard = time.Now()
}

// send has the server send the next message of its log, or a keepalive where
// keep says so or nothing is left.
func (s *simStream) send(keep bool) {
	p, random := &s.sim.postgres, s.sim.random
	if keep || s.next == len(p.log) {
		to := p.end
		if s.next < len(p.log) {
			to = p.log[s.next].commit
		}
		switch {
		case to <= s.sent:
		case random.IntN(2) == 0:
			s.sent = to
		default:
			s.sent += lsn.Pos(random.Int64N(int64(to-s.sent) + 1))
		}
		urgent := time.Since(s.heard) > s.sim.base.SenderTimeout/2
		s.asked = false
		s.deliver(wal.Message{End: s.sent, Reply: urgent || random.IntN(8) == 0})
		return
	}
	if !s.described {
		s.described = true
		s.deliver(wal.Message{Data: simRelation(simTable, "outbox")}, wal.Message{Data: simRelation(simOtherTable, "other")})
	}
	c := p.log[s.next]
	s.deliver(c.messages[s.within])
	s.within++
	if s.within == len(c.messages) {
		s.next, s.within, s.sent = s.next+1, 0, max(s.sent, c.end)
	}
}

func (s *simStream) deliver(messages ...wal.Message) {
	s.messages = append(s.messages, messages...)
	s.wake()
}
