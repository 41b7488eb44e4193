package relay

import (
	"context"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// statusEvery is how often PostgreSQL hears from us at the least; a shorter
// wal_sender_timeout makes it a third of that.
const statusEvery = 10 * time.Second

// save stores positions in Kafka as the tracker moves on, at most one every
// ConfirmEvery, and has each confirmed to PostgreSQL after it.
func (s *session) save(ctx context.Context) error {
	for {
		done, changed := s.tracker.confirmable()
		if uint64(done.end) == s.saved.Load() {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if err := s.saveAt(ctx, done); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the stop is why it failed
			}
			return err
		}
		s.tell()
		pause := time.NewTimer(s.cfg.ConfirmEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// saveAt stores p unless it is stored.
func (s *session) saveAt(ctx context.Context, p point) error {
	if uint64(p.end) == s.saved.Load() {
		return nil
	}
	next := s.from
	next.Commit, next.Index, next.End, next.Sequence = p.commit, p.index, p.end, p.sequence
	next.At = time.Now().UTC()
	if err := s.store.Save(ctx, next); err != nil {
		return err
	}
	s.saved.Store(uint64(p.end))
	s.metrics.sequence.Set(float64(p.sequence))
	return nil
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
