package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

// A LateError says that the relay streams, but that a canary is not through in
// time: some events may wait as it does.
type LateError struct {
	Since time.Time // when the canary was written
	Where string    // it is stuck
}

func (e *LateError) Error() string {
	return fmt.Sprintf("the canary of %s is not through after %v: %s",
		e.Since.UTC().Format(time.RFC3339), time.Since(e.Since).Round(time.Second), e.Where)
}

// late gives why the canary is not through in time; nil: it is, or there is
// none.
func (c *canaries) late(s *session) error {
	if c == nil || s == nil {
		return nil
	}
	c.through(s) // where no position need be stored
	c.mu.Lock()
	n := c.canary
	c.mu.Unlock()
	if n.since.IsZero() || time.Since(n.since) <= c.cfg.CanaryWithin {
		return nil
	}
	return &LateError{Since: n.since, Where: n.where(s)}
}

// where says how far the canary has come.
func (n canary) where(s *session) string {
	seen, saved := lsn.Pos(s.seen.Load()), lsn.Pos(s.saved.Load())
	waiting := "nothing is on its way to Kafka"
	if count := s.tracker.inFlight(); count > 0 || s.budget.inUse() > 0 {
		waiting = fmt.Sprintf("Kafka has not acknowledged %d bytes of records (%d transactions) read before", s.budget.inUse(), count)
	}
	switch {
	case n.mark == 0 && n.err != nil:
		return fmt.Sprintf("it could not be written to PostgreSQL: %v", n.err)
	case n.mark == 0:
		return "it is being written to PostgreSQL, which does not answer"
	case saved >= n.mark:
		return fmt.Sprintf("PostgreSQL has said nothing in the stream since; the stored position is %v", saved)
	case seen >= n.mark:
		return fmt.Sprintf("it was seen in the stream at %v but is not acknowledged, the stored position is %v; %s", n.mark, saved, waiting)
	}
	return fmt.Sprintf("it was not seen in the stream, which is read up to %v, it stands at %v; %s", seen, n.mark, waiting)
}

// age is how long the canary has been on its way.
func (c *canaries) age() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.canary.since.IsZero() {
		return 0
	}
	return time.Since(c.canary.since)
}

// report logs a canary that is late, once, and that it is no more.
func (c *canaries) report(ctx context.Context, s *session) {
	err := c.late(s)
	late, isLate := errors.AsType[*LateError](err)
	c.mu.Lock()
	was := c.warned
	c.warned = isLate
	c.mu.Unlock()
	switch {
	case isLate && !was:
		c.cfg.Log.WarnContext(ctx, "the canary is late, the relay is not ready", slog.Time("canary_of", late.Since), slog.String("where", late.Where))
	case was && !isLate && s != nil:
		c.cfg.Log.InfoContext(ctx, "the canary is through, the relay is ready")
	}
}

// A probe is a transaction that was read, to tell how old what is not stored
// is.
type probe struct {
	commit lsn.Pos
	at     time.Time
}

// spot makes the first transaction behind the stored position the probe. The
// reader calls it for each.
func (s *session) spot(m pgoutput.Begin) {
	if s.probe.Load() == nil {
		s.probe.Store(&probe{commit: m.FinalLSN, at: m.CommitTime})
	}
}

// spotKeepalive notes a keepalive.
func (s *session) spotKeepalive(end lsn.Pos) {
	if s.open == nil {
		s.seen.Store(max(s.seen.Load(), uint64(end)))
	}
	s.heard.Store(time.Now().UnixNano())
}

// passed says that a position is stored.
func (s *session) passed(end lsn.Pos) {
	if p := s.probe.Load(); p != nil && p.commit < end {
		s.probe.CompareAndSwap(p, nil)
	}
	s.canaries.through(s)
}

// lag is how old the oldest commit is that is known and not stored.
func (s *session) lag() time.Duration {
	var lag time.Duration
	if p := s.probe.Load(); p != nil {
		lag = max(0, time.Since(p.at))
	}
	if s.canaries != nil {
		lag = max(lag, s.canaries.age())
	}
	return lag
}
