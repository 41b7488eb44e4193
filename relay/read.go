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
	session *session
	entry   *entry
	commit  lsn.Pos
	at      time.Time // of the commit
	records int64
	promise func(*kgo.Record, error) // acknowledged, as one value for all records
	skip    bool                     // published before this session
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
			s.tracker.keepalive(m.End)
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
		t := &transaction{session: s, entry: s.tracker.begin(), commit: m.FinalLSN, at: m.CommitTime, skip: m.FinalLSN <= s.resume}
		t.promise = t.acknowledged
		s.open = t
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

// publish hands the next record of the open transaction to the client.
func (s *session) publish(ctx context.Context, record *kgo.Record) error {
	t := s.open
	if err := s.topics.ensure(ctx, s.client, record.Topic); err != nil {
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
	s.tracker.add(t.entry)
	// The session's end must not fail records on their way: finish waits.
	s.client.Produce(context.WithoutCancel(ctx), record, t.promise)
	return nil
}

func (s *session) commit(m pgoutput.Commit) error {
	t := s.open
	if t == nil || t.commit != m.CommitLSN {
		return fmt.Errorf("commit %v without its begin in the replication stream", m.CommitLSN)
	}
	s.open = nil
	p := point{end: m.EndLSN}
	if t.records > 0 {
		p.commit, p.index, p.sequence = t.commit, t.records-1, s.sequence
	}
	s.tracker.commit(t.entry, p)
	return nil
}

// acknowledged is called by the client for every record, in any order. After
// a failed one nothing of this session's is produced or confirmed beyond it.
func (t *transaction) acknowledged(r *kgo.Record, err error) {
	s := t.session
	s.budget.give(size(r))
	if err != nil {
		s.failed.Store(true)
		s.fail(refused(r, err))
		return
	}
	s.metrics.published(r.Topic, time.Since(t.at))
	s.tracker.acknowledge(t.entry)
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
