package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// metadataMinAge lets the client look again soon for a topic just made.
const metadataMinAge = 250 * time.Millisecond

// lockEvery is how often a standby asks whether it is its turn.
const lockEvery = 250 * time.Millisecond

// prepare takes the lock, decides where to begin, makes what is missing, and
// starts the stream.
func (s *session) prepare(ctx context.Context, conn *pgx.Conn, pg *pgx.ConnConfig) error {
	// The lock keeps standbys from looking at positions while another relay
	// writes them. It ends with the connection. The slot itself is the guard
	// against a relay that has lost the lock without knowing.
	if err := lock(ctx, conn, s.cfg.Slot); err != nil {
		return fmt.Errorf("wait for the lock of slot %s: %w", s.cfg.Slot, err)
	}
	state, err := slot.Inspect(ctx, conn, s.cfg.names())
	if err != nil {
		return err
	}
	s.state = state
	if err := s.store.Prepare(ctx); err != nil {
		return err
	}
	stored, err := s.load(ctx)
	if err != nil {
		return err
	}
	start, err := begin(stored, state, s.cfg.names(), s.cfg.LostSlot)
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
		if err := slot.Publish(ctx, conn, s.cfg.names(), state); err != nil {
			return err
		}
	}
	s.from = start.position
	if start.create {
		if err := s.createSlot(ctx, conn, pg, start); err != nil {
			return err
		}
	}
	return s.startStream(ctx, pg)
}

// lock takes the advisory lock of slot for as long as conn is open. It asks
// again and again: a statement that waits for the lock in the server would hold
// a snapshot, and with it back vacuum, for as long as the other relay works.
func lock(ctx context.Context, conn *pgx.Conn, slot string) error {
	ticker := time.NewTicker(lockEvery)
	defer ticker.Stop()
	for {
		var taken bool
		err := conn.QueryRow(ctx, "select pg_try_advisory_lock(hashtextextended('walpost relay ' || $1, 0))", slot).Scan(&taken)
		if err != nil || taken {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// load gives the stored position, nil where there is none.
func (s *session) load(ctx context.Context) (*position.Position, error) {
	p, found, err := s.store.Load(ctx)
	if err != nil || !found {
		return nil, err
	}
	return &p, nil
}

// createSlot makes the slot and stores where it begins. The intent is stored
// first, so that a start that is cut off here is told from a lost position.
func (s *session) createSlot(ctx context.Context, conn *pgx.Conn, pg *pgx.ConnConfig, start beginning) error {
	if start.drop {
		if err := slot.Drop(ctx, conn, s.cfg.Slot); err != nil {
			return err
		}
	}
	if err := s.store.Save(ctx, s.from); err != nil {
		return err
	}
	replica, err := wal.Connect(ctx, &pg.Config, s.cfg.SenderTimeout)
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "creating the slot; this waits for open transactions", slog.String("slot", s.cfg.Slot))
	created, err := slot.Create(ctx, replica, conn, s.cfg.names(), s.state)
	err = errors.Join(err, replica.Close(ctx))
	if err != nil {
		if created.Start != 0 { // it would keep WAL until the next start
			err = errors.Join(err, slot.Drop(context.WithoutCancel(ctx), conn, s.cfg.Slot))
		}
		return err
	}
	if created.ExistingRows && start.fresh && s.cfg.ExistingRows == RefuseRows {
		if err := slot.Drop(ctx, conn, s.cfg.Slot); err != nil {
			return err
		}
		return &GapError{
			What: fmt.Sprintf("table %s holds rows from before its slot, which PostgreSQL will not deliver", s.cfg.Table),
			Hint: "start the relay before the first event is written; to start behind the rows that are there, use --existing-rows=skip",
		}
	}
	s.from.Creating, s.from.End = false, created.Start
	return s.store.Save(ctx, s.from)
}

// startStream takes the slot. Only then can no other relay publish any more,
// so the position is read again: one that has moved since belongs to a relay
// that held the slot until now.
func (s *session) startStream(ctx context.Context, pg *pgx.ConnConfig) error {
	stream, err := wal.Start(ctx, &pg.Config, wal.Options{
		Slot: s.cfg.Slot, Publication: s.cfg.Publication, Messages: s.cfg.Messages == ReadMessages, Start: s.from.End, SenderTimeout: s.cfg.SenderTimeout,
	})
	if err != nil {
		return err
	}
	stored, err := s.load(ctx)
	if err == nil && (stored == nil || stored.End != s.from.End || stored.Sequence != s.from.Sequence) {
		err = errors.New("another relay has stored a position meanwhile")
	}
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	s.stream = stream
	s.router = router{source: s.cfg.Source, generation: s.from.Generation}
	s.sequence, s.resume = s.from.Sequence, s.from.Commit
	s.tracker.done = point{end: s.from.End, commit: s.from.Commit, index: s.from.Index, sequence: s.from.Sequence}
	s.saved.Store(uint64(s.from.End))
	return nil
}
