package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/wal"
)

// A transaction is the one being read.
type transaction struct {
	commit    lsn.Pos
	at        time.Time // of the commit
	records   int64     // read, with those passed over
	published int64     // so many of its first records are in Kafka from before
	skip      bool      // all of it is

	part *part       // the one that takes records, where delivery is at least once
	last *kgo.Record // the one handed on last
}

// lostGrace is how long what is on its way may go on after PostgreSQL has ended
// the stream, perhaps by a restart, which ends the lock too. It is less than
// another relay takes to begin.
const lostGrace = 200 * time.Millisecond

// read takes messages off the stream until ctx ends.
func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.stream.Next()
		if err != nil {
			if errors.Is(err, wal.ErrInterrupted) {
				return nil
			}
			time.AfterFunc(lostGrace, func() { s.give(err) })
			return err
		}
		s.brake.wait(ctx)
		if m.Data == nil {
			s.spotKeepalive(m.End)
			s.metrics.serverEnd.Store(uint64(m.End))
			if s.open == nil {
				s.publisher.keepalive(m.End)
			}
			if m.Reply {
				s.tell()
			}
			continue
		}
		if err := s.order(ctx, m); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the stop is why it failed
			}
			return err
		}
	}
}

func (s *session) decode(ctx context.Context, b []byte) error {
	switch kind := pgoutput.KindOf(b); kind {
	case pgoutput.KindBegin:
		m, err := pgoutput.ParseBegin(b)
		if err != nil {
			return err
		}
		if err := s.lease(); err != nil {
			return err
		}
		s.open = s.begin(m)
	case pgoutput.KindRelation:
		return s.relation(b)
	case pgoutput.KindInsert:
		return s.insert(ctx, b)
	case pgoutput.KindMessage:
		return s.message(ctx, b)
	case pgoutput.KindCommit:
		m, err := pgoutput.ParseCommit(b)
		if err != nil {
			return err
		}
		return s.commit(m)
	case pgoutput.KindUpdate, pgoutput.KindDelete, pgoutput.KindTruncate, pgoutput.KindType, pgoutput.KindOrigin:
		// Other tables of the publication, or nothing that makes an event.
	default:
		return fmt.Errorf("unknown message %q in the replication stream", kind)
	}
	return nil
}

// relation remembers how rows of the outbox table are laid out. The leaves of
// a partitioned table are described too, but its rows come as the root's.
func (s *session) relation(b []byte) error {
	m, err := pgoutput.ParseRelation(b)
	if err != nil || m.Namespace != s.state.Namespace || m.Name != s.state.Table {
		return err
	}
	l, err := newLayout(m)
	if err != nil {
		return err
	}
	s.layouts[m.OID] = l
	return nil
}

func (s *session) insert(ctx context.Context, b []byte) error {
	t := s.open
	if t == nil {
		return errors.New("insert outside a transaction in the replication stream")
	}
	oid, columns, err := pgoutput.ParseInsert(b, s.columns[:0])
	s.columns = columns
	if err != nil {
		return err
	}
	l := s.layouts[oid]
	if l == nil || t.skip {
		return nil
	}
	if err := l.read(columns, &s.row); err != nil {
		l.salvage(columns, &s.row)
		return s.invalid(ctx, &s.row, &poisonError{reasonRow, &RowError{ID: s.row.ID, Commit: t.commit, Err: err}})
	}
	if s.row.packed() {
		if id, err := s.check(s.row.Payload, s.row.createdAt); err != nil {
			r := unread(s.row, envelope.RowType, s.row.Payload)
			return s.invalid(ctx, &r, &poisonError{reasonEnvelope, &RowError{ID: cmp.Or(id, s.row.ID), Commit: t.commit, Err: err}})
		}
		return s.unpack(ctx, s.row.Payload, s.row.createdAt)
	}
	record, err := s.router.route(&s.row, t.commit, t.records, s.sequence+1)
	if err != nil {
		return s.invalid(ctx, &s.row, &poisonError{reasonRow, &RowError{ID: s.row.ID, Commit: t.commit, Err: err}})
	}
	return s.publish(ctx, record)
}

// begin opens the transaction of m. What the position that the session began
// with covers is passed over: that can be where PostgreSQL has forgotten what
// was confirmed, or had not been told of it.
func (s *session) begin(m pgoutput.Begin) *transaction {
	s.spot(m)
	t := &transaction{commit: m.FinalLSN, at: m.CommitTime}
	switch {
	case m.FinalLSN > s.from.Commit:
	case m.FinalLSN == s.from.Commit && s.from.Partial():
		t.published = s.from.Index + 1
	default:
		t.skip = true
	}
	return t
}

// publish hands the next record of the open transaction on, unless it is in
// Kafka from before.
func (s *session) publish(ctx context.Context, record *kgo.Record) error {
	t := s.open
	if t.records < t.published {
		return s.passOver(t, record)
	}
	n := size(record)
	if err := s.examine(ctx, record, n); err != nil {
		if p, ok := errors.AsType[*poisonError](err); ok {
			return s.bury(ctx, record, p)
		}
		return err
	}
	if !s.suspected(record) {
		return s.hand(ctx, record, n, false)
	}
	if err := s.hand(ctx, record, n, true); err != nil {
		return err
	}
	s.acquitted(ctx, record)
	return nil
}

// hand gives the publisher the next record of the open transaction, of n
// bytes. One that goes alone has nothing else on its way with it: hand then
// returns when Kafka has it.
func (s *session) hand(ctx context.Context, record *kgo.Record, n int64, alone bool) error {
	if alone {
		if err := s.budget.idle(ctx); err != nil {
			return err
		}
		s.judge.alone.Store(record)
		defer s.judge.alone.Store(nil)
	}
	if err := s.budget.take(ctx, n); err != nil {
		return err
	}
	// After a refused record nothing may follow: to its partition it would be
	// an event in front of its predecessor.
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.sequence++
	s.open.records++
	s.publisher.add(ctx, s.open, record)
	if !alone {
		return nil
	}
	if err := s.budget.idle(ctx); err != nil {
		return err
	}
	return context.Cause(ctx) // it may be Kafka's refusal
}

// passOver counts a record that is in Kafka. The last of them must be the event
// that the position names: if it is another one, the log is read in another
// way than before, and passing over would lose events.
func (s *session) passOver(t *transaction, record *kgo.Record) error {
	t.records++
	if id := eventID(record); t.records == t.published && id != s.from.EventID {
		return s.recount(t, "event "+id)
	}
	return nil
}

func (s *session) recount(t *transaction, instead string) error {
	return &GapError{
		What: fmt.Sprintf("transaction %v holds %s where event %s was published as its number %d, and the events behind that were not yet", t.commit, instead, s.from.EventID, s.from.Index),
		Hint: "start with the --table, --publication, --messages, --message-prefix and --skip-message of before until the stored position is beyond this transaction",
	}
}

func (s *session) commit(m pgoutput.Commit) error {
	t := s.open
	if t == nil || t.commit != m.CommitLSN {
		return fmt.Errorf("commit %v without its begin in the replication stream", m.CommitLSN)
	}
	if t.records < t.published {
		return s.recount(t, "no event")
	}
	s.open = nil
	s.seen.Store(uint64(m.EndLSN))
	if t.skip || t.records == t.published {
		s.publisher.keepalive(m.EndLSN)
		return nil
	}
	s.publisher.commit(t, m.EndLSN)
	return nil
}
