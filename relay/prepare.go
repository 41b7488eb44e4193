package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// prepare takes the lock, decides where to begin, makes what is missing, and
// starts the stream.
func (s *session) prepare(ctx context.Context) error {
	s.publisher = &atLeastOnce{s: s}
	if s.cfg.Delivery == ExactlyOnce {
		s.publisher = &exactlyOnce{s: s, more: make(chan struct{}, 1)}
	}
	// The lock keeps standbys from looking at positions while another relay
	// writes them. It ends with the connection. The slot itself is the guard
	// against a relay that has lost the lock without knowing.
	if err := s.database.lock(ctx); err != nil {
		return err
	}
	state, err := s.database.inspect(ctx)
	if err != nil {
		return err
	}
	s.state = state
	if err := s.positions.Prepare(ctx); err != nil {
		return err
	}
	start, err := s.whence(ctx, state)
	if err != nil {
		return err
	}
	if !state.Published {
		if !start.create {
			return &GapError{
				What: fmt.Sprintf("publication %s is gone, and the slot delivers nothing that committed before a new one", s.cfg.Publication),
				Hint: fmt.Sprintf("drop the slot, run: select pg_drop_replication_slot('%s'); and start once with --lost-slot=continue", s.cfg.Slot),
			}
		}
		if err := s.database.publish(ctx, state); err != nil {
			return err
		}
	}
	s.from = start.position
	if start.create {
		if err := s.createSlot(ctx, start); err != nil {
			return err
		}
	}
	return s.startStream(ctx)
}

// whence decides where to begin. Kafka answers a commit before those who read
// see it: where the position falls short of the slot, and was written in a
// transaction, that is ended first, and with it the commits before it.
func (s *session) whence(ctx context.Context, state slot.State) (beginning, error) {
	stored, found, err := s.positions.Load(ctx)
	if err != nil {
		return beginning{}, err
	}
	if stored.Transactional && (!found && state.Exists || found && loss(&stored, state, s.cfg.names()) != "") {
		if err := s.outside.fence(ctx, transactionalID(s.cfg.Source)); err != nil {
			return beginning{}, err
		}
		if stored, found, err = s.positions.Load(ctx); err != nil {
			return beginning{}, err
		}
	}
	if !found {
		return begin(nil, state, s.cfg.names(), s.cfg.LostSlot)
	}
	return begin(&stored, state, s.cfg.names(), s.cfg.LostSlot)
}

// load gives the stored position, nil where there is none.
func (s *session) load(ctx context.Context) (*position.Position, error) {
	p, found, err := s.positions.Load(ctx)
	if err != nil || !found {
		return nil, err
	}
	return &p, nil
}

// store stores p before the stream has begun.
func (s *session) store(ctx context.Context, p position.Position) error {
	x, ok := s.publisher.(*exactlyOnce)
	if !ok {
		return s.positions.Save(ctx, p)
	}
	if err := s.producer.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a Kafka transaction: %w", err)
	}
	return x.commitWith(ctx, p)
}

// createSlot makes the slot and stores where it begins. The intent is stored
// first, so that a start that is cut off here is told from a lost position.
func (s *session) createSlot(ctx context.Context, start beginning) error {
	if start.drop {
		if err := s.database.drop(ctx); err != nil {
			return err
		}
	}
	if err := s.store(ctx, s.from); err != nil {
		return err
	}
	created, err := s.database.create(ctx, s.state)
	if err != nil {
		if created.Start != 0 { // it would keep WAL until the next start
			err = errors.Join(err, s.database.drop(context.WithoutCancel(ctx)))
		}
		return err
	}
	if created.ExistingRows && start.fresh && s.cfg.ExistingRows == RefuseRows {
		if err := s.database.drop(ctx); err != nil {
			return err
		}
		return &GapError{
			What: fmt.Sprintf("table %s holds rows from before its slot, which PostgreSQL will not deliver", s.cfg.Table),
			Hint: "start the relay before the first event is written; to start behind the rows that are there, use --existing-rows=skip",
		}
	}
	s.from.Creating, s.from.End = false, created.Start
	return s.store(ctx, s.from)
}

// startStream takes the slot, then fences, and only then reads the position
// that counts. Whoever has published before can't store another one after it:
// without the slot a relay publishes nothing new, what it still has in a Kafka
// transaction is ended by the fence, and what it has published without one is
// known again by its sequence.
func (s *session) startStream(ctx context.Context) error {
	s.began = time.Now()
	stream, err := s.database.stream(ctx, s.from.End)
	if err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return errors.Join(err, stream.Close())
	}
	s.stream = stream
	s.router = router{source: s.cfg.Source, generation: s.from.Generation}
	s.sequence = s.from.Sequence
	s.tracker.done = s.start()
	s.saved.Store(uint64(s.from.End))
	return nil
}

// settle fences and reads the position again. It may have moved on since it was
// read first, by a relay that had the slot until now: the stream, which began
// earlier then, gives some transactions that are passed over.
func (s *session) settle(ctx context.Context) error {
	state, err := s.database.inspect(ctx) // first: what it has confirmed was stored before
	if err != nil {
		return err
	}
	if s.cfg.Delivery == ExactlyOnce {
		if _, _, err := s.producer.ProducerID(ctx); err != nil {
			return fmt.Errorf("fence the producer %s: %w", s.transactional(), err)
		}
	}
	stored, err := s.load(ctx)
	if err != nil {
		return err
	}
	if s.cfg.Delivery == AtLeastOnce && stored != nil && stored.Transactional {
		// It may have been written by a relay that publishes in transactions
		// and does not know yet that the slot is gone.
		if err := s.outside.fence(ctx, transactionalID(s.cfg.Source)); err != nil {
			return err
		}
		if stored, err = s.load(ctx); err != nil {
			return err
		}
	}
	start, err := begin(stored, state, s.cfg.names(), StopOnLoss)
	if err != nil {
		return err
	}
	if p := start.position; start.create || p.Generation != s.from.Generation || p.End < s.from.End || p.Sequence < s.from.Sequence {
		return errors.New("another relay has stored a position meanwhile")
	}
	s.from = start.position
	if s.cfg.Delivery == ExactlyOnce && !s.from.Transactional {
		return s.store(ctx, s.from) // says to the next relay that there is something to fence
	}
	return nil
}
