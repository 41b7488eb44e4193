package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
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

// read takes messages off the stream until ctx ends.
func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.stream.Next()
		if err != nil {
			if errors.Is(err, wal.ErrInterrupted) {
				return nil
			}
			return err
		}
		if m.Data == nil {
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
		return &RowError{ID: s.row.ID, Commit: t.commit, Err: err}
	}
	if s.row.packed() {
		if id, err := s.check(s.row.Payload); err != nil {
			return &RowError{ID: cmp.Or(id, s.row.ID), Commit: t.commit, Err: err}
		}
		return s.unpack(ctx, s.row.Payload, s.row.createdAt)
	}
	record, err := s.router.route(&s.row, t.commit, t.records, s.sequence+1)
	if err != nil {
		return &RowError{ID: s.row.ID, Commit: t.commit, Err: err}
	}
	return s.publish(ctx, record)
}

// begin opens the transaction of m. What the position that the session began
// with covers is passed over: that can be where PostgreSQL has forgotten what
// was confirmed, or had not been told of it.
func (s *session) begin(m pgoutput.Begin) *transaction {
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
	if err := s.topics.ensure(ctx, s.admin, record.Topic); err != nil {
		return err
	}
	if err := s.budget.take(ctx, size(record)); err != nil {
		return err
	}
	// After a refused record nothing may follow: to its partition it would be
	// an event in front of its predecessor.
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.sequence++
	t.records++
	s.publisher.add(ctx, t, record)
	return nil
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
	if t.skip || t.records == t.published {
		s.publisher.keepalive(m.EndLSN)
		return nil
	}
	s.publisher.commit(t, m.EndLSN)
	return nil
}

// refusal ends the session by a record that the client has failed. Nothing is
// waited for any more: records behind it may be in front of it, if it comes
// again.
func (s *session) refusal(r *kgo.Record, err error) {
	s.failed.Store(true)
	s.fail(refused(r, err))
	s.give(errGrace)
}

// refused tells a record that Kafka will never take from a session that ends.
func refused(r *kgo.Record, err error) error {
	e := &RecordError{Topic: r.Topic, Key: string(r.Key), Err: err}
	if event, decodeErr := cloudevent.Decode(r); decodeErr == nil {
		e.ID = event.ID
	}
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		e.Hint = "raise the topic: kafka-configs.sh --alter --topic " + r.Topic + " --add-config max.message.bytes=…; and have the writer check sizes (outbox.Writer.MaxBytes)"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		e.Hint = "allow it: kafka-acls.sh --add --producer --topic " + r.Topic
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.CorruptMessage), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidTimestamp):
		e.Hint = "see the broker's log for the rule it breaks, and change the topic's configuration"
	default:
		return fmt.Errorf("publish to topic %s: %w", r.Topic, err) // a new session tries again
	}
	return e
}
