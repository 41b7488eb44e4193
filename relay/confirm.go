package relay

import (
	"context"
	"errors"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
)

// statusEvery is how often PostgreSQL hears from us at the least; a shorter
// wal_sender_timeout makes it a third of that.
const statusEvery = 10 * time.Second

// start is the point at which the session begins.
func (s *session) start() point {
	return point{end: s.from.End, commit: s.from.Commit, index: s.from.Index, sequence: s.from.Sequence, id: s.from.EventID}
}

// position gives p as it is stored.
func (s *session) position(p point) position.Position {
	next := s.from
	next.Commit, next.Index, next.End, next.Sequence = p.commit, p.index, p.end, p.sequence
	next.EventID = ""
	if next.Partial() {
		next.EventID = p.id
	}
	next.At = time.Now().UTC()
	return next
}

// confirmed says that p is stored, so PostgreSQL may be told of it.
func (s *session) confirmed(p point) {
	s.saved.Store(uint64(p.end))
	s.metrics.sequence.Set(float64(p.sequence))
	s.count(p.sequence)
	s.passed(p.end)
	s.tell()
}

// confirm tells PostgreSQL what is stored: at once when that has moved or the
// server asks, and regularly so that the server, which may be kept waiting by
// a full budget, knows us alive. The server is asked to answer, so that its
// silence means something too.
func (s *session) confirm(ctx context.Context) error {
	regular := time.NewTicker(min(statusEvery, s.cfg.SenderTimeout/3))
	defer regular.Stop()
	for {
		ask := false
		select {
		case <-s.told:
		case <-regular.C:
			ask = true
		case <-ctx.Done():
			return nil
		}
		if err := s.stream.Confirm(lsn.Pos(s.saved.Load()), ask); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// tell wakes the confirmer. One wake-up that waits is enough.
func (s *session) tell() {
	select {
	case s.told <- struct{}{}:
	default:
	}
}

// guard asks regularly whether the lock and the slot are still this session's,
// and fails when they are not, or when there is no answer. That is before
// PostgreSQL gives them to another relay: it does so when it has not heard from
// this one for SenderTimeout, and by then this one has been silent for half of it.
func (s *session) guard(ctx context.Context) error {
	regular := time.NewTicker(s.cfg.SenderTimeout / 6)
	defer regular.Stop()
	for {
		select {
		case <-regular.C:
		case <-ctx.Done():
			return nil
		}
		asked := time.Since(s.began)
		asking, cancel := context.WithTimeout(ctx, s.cfg.SenderTimeout/3)
		err := s.database.holds(asking)
		cancel()
		if err == nil {
			s.leased.Store(int64(asked))
		} else if ctx.Err() == nil {
			return err
		}
	}
}

// errExpired says that the lock and the slot may be another relay's.
var errExpired = errors.New("PostgreSQL was not asked for so long that it may have given the slot to another relay: this one was frozen, or Kafka slow at the start")

// lease fails when guard has had no answer for longer than it waits for one. A
// process that was frozen must not begin, as it wakes, with going on where it
// was.
func (s *session) lease() error {
	if time.Since(s.began)-time.Duration(s.leased.Load()) > s.cfg.SenderTimeout*2/3 {
		return errExpired
	}
	return nil
}
