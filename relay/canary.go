package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// CanaryPrefix is the prefix of the logical decoding messages that a relay
// writes to see whether it works. They hold the source's name, are no events,
// and are passed over by every relay that reads them.
const CanaryPrefix = "walpost.canary"

// defaultCanaryEvery is also how often the slot is looked at without canaries.
const defaultCanaryEvery = 10 * time.Second

// canaries look after the relay from outside the stream, over a connection of
// their own. Every CanaryEvery they note how the slot stands, and while the
// relay streams they write a canary: a message in the write-ahead log, on whose
// way through the stream everything that committed before it must be
// acknowledged by Kafka, and a position behind it stored. One is on its way at
// a time.
//
// nil is no canaries, as where a test stands for the servers.
type canaries struct {
	cfg     Config
	metrics *metrics
	observe observer
	streams chan struct{} // has one when a stream has begun

	mu     sync.Mutex
	slot   slotStanding
	canary canary
	last   time.Duration // round trip of the last one that was through
	warned bool          // of the one that is late
	denied bool          // the role may not write messages
}

// A canary is one on its way; zero: none is.
type canary struct {
	since   time.Time // when it was tried to write first
	mark    lsn.Pos   // a stored position at or beyond it is through; 0: it is not written yet
	written bool      // into the log; else mark is only where the log ended
	err     error     // why it could not be written
}

func newCanaries(cfg Config, pg *pgx.ConnConfig, m *metrics) *canaries {
	c := &canaries{cfg: cfg, metrics: m, observe: &observation{cfg: cfg, pg: pg}, streams: make(chan struct{}, 1)}
	m.began = func() {
		select {
		case c.streams <- struct{}{}:
		default:
		}
	}
	return c
}

// start looks after the relay until the returned function is called, which
// waits for the end of it.
func (c *canaries) start(ctx context.Context) (stop func()) {
	if c == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { c.run(ctx) })
	return func() { cancel(); running.Wait() }
}

func (c *canaries) run(ctx context.Context) {
	defer c.observe.close(context.WithoutCancel(ctx))
	every := c.cfg.CanaryEvery
	if every < 0 {
		every = defaultCanaryEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		c.round(ctx)
		select {
		case <-ticker.C:
		case <-c.streams:
		case <-ctx.Done():
			return
		}
	}
}

// round looks at the slot and sees to the canary.
func (c *canaries) round(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, c.cfg.CanaryWithin)
	defer cancel()
	s := c.metrics.current.Load()
	due := s != nil && c.due()
	standing, fresh, err := c.observe.look(asking)
	if err == nil {
		c.metrics.serverEnd.Store(max(c.metrics.serverEnd.Load(), uint64(standing.end)))
		c.stand(standing, fresh)
	} else if ctx.Err() == nil {
		c.cfg.Log.DebugContext(ctx, "could not look at the slot", slog.Any("error", err))
	}
	if due {
		c.write(asking, standing, err)
		c.through(s)
	}
	c.report(ctx, s)
}

// due says whether a canary must be written, and notes since when one is on
// its way: also one that can't be written.
func (c *canaries) due() bool {
	if c.cfg.CanaryEvery < 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canary.since.IsZero() {
		c.canary.since = time.Now()
	}
	return true
}

// stand notes how the slot stands. Over a fresh connection the server may be
// another one, whose log never reaches where the old one's was: the canary is
// then written again.
func (c *canaries) stand(s slotStanding, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slot = s
	if fresh {
		c.canary.mark = 0
	}
}

// write writes the canary unless it is written. Where the role may not, the
// mark is where the log ends: reaching it proves less, since nothing need have
// come through the stream but an answer.
func (c *canaries) write(ctx context.Context, standing slotStanding, err error) {
	c.mu.Lock()
	pending, denied := c.canary, c.denied
	c.mu.Unlock()
	if pending.mark != 0 {
		return
	}
	mark, written := standing.end, false
	if err == nil && !denied && !standing.recovery {
		mark, err = c.observe.emit(ctx)
		written = err == nil
		if mayNot(err) {
			c.cfg.Log.WarnContext(ctx, "this role may not write a canary; readiness rests on the server's answers, which prove less",
				slog.Any("error", err), slog.String("hint", "grant execute on function pg_logical_emit_message(boolean, text, bytea) to the relay's role; from PostgreSQL 17 on its arguments are (boolean, text, bytea, boolean)"))
			mark, err, denied = standing.end, nil, true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied = denied
	if c.canary.since.IsZero() { // through meanwhile
		return
	}
	if c.canary.err = err; err == nil {
		c.canary.mark, c.canary.written = mark, written
	}
}

// through ends the canary that s has brought through. The session calls it
// when a position is stored.
func (c *canaries) through(s *session) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.canary
	if n.mark == 0 || lsn.Pos(s.saved.Load()) < n.mark {
		return
	}
	if !n.written && s.heard.Load() < n.since.UnixNano() {
		return
	}
	c.last = time.Since(n.since)
	c.canary = canary{}
}

// seen gives how the slot stood when it was looked at last, and the round trip
// of the last canary; 0: none was through.
func (c *canaries) seen() (slotStanding, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slot, c.last
}
