package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// A Poison says what becomes of an event that can never be published as it is.
type Poison string

// The answers to an event that can't be published.
const (
	Halt       Poison = "halt"        // stop in front of it, with an error that names it
	DeadLetter Poison = "dead-letter" // publish it to the dead-letter topic with the reason, and go on
)

// Reasons why an event can't be published, as dead letters and the metric
// relay_dead_letters_total name them.
const (
	reasonRow          = "invalid-row"
	reasonEnvelope     = "invalid-envelope"
	reasonMessage      = "invalid-message"
	reasonTopicName    = "topic-name"
	reasonTopicMissing = "topic-missing"
	reasonTopicDenied  = "topic-denied"
	reasonTooLarge     = "too-large"
	reasonTimestamp    = "timestamp"
	reasonRefused      = "refused" // by a rule of the broker's
)

// A poisonError is why an event can't be published. Its Err is what the relay
// stops with where it is told to.
type poisonError struct {
	reason string
	err    error
}

func (e *poisonError) Error() string { return e.err.Error() }
func (e *poisonError) Unwrap() error { return e.err }

// A judge finds out which record it is that Kafka refuses.
//
// The client tells of a refusal by failing all records of the batch, and all
// behind it in the partition; which one is to blame Kafka does not say to it.
// And what the reader hands on a moment later could be in Kafka before anybody
// knows. So the client holds back whatever it has not sent from the moment of
// the refusal on, and the session ends. The next one sends the records of that
// topic one by one from the first of the batch, each with nothing else on its
// way; the one that is refused alone is to blame.
type judge struct {
	lessons *lessons
	going   context.Context // of all records; ends when one is refused
	stop    context.CancelFunc

	// The reader's; a copy, since whatever changes them ends the session.
	suspect  suspect
	verdicts map[string]verdict

	alone     atomic.Pointer[kgo.Record] // the one that is alone on its way
	sentenced atomic.Bool                // a record was refused
	letters   letters                    // handed on, and not yet stored
}

// begin takes what l holds for a new session.
func (j *judge) begin(l *lessons) {
	j.lessons = l
	j.suspect, j.verdicts = l.learned()
	j.going, j.stop = context.WithCancel(context.Background())
}

// examine gives a [poisonError] where record can't be published, for its
// topic, its size, or because it was refused when it was sent alone.
func (s *session) examine(ctx context.Context, record *kgo.Record, bytes int64) error {
	limit, err := s.topics.ensure(ctx, s.admin, record.Topic)
	if err != nil {
		if bad, ok := errors.AsType[*TopicError](err); ok {
			return &poisonError{bad.Reason, recordError(record, bad, bad.Hint)}
		}
		return err
	}
	if record.Topic == s.cfg.DeadLetterTopic && s.cfg.Poison == DeadLetter {
		bad := &TopicError{Topic: record.Topic, Reason: reasonTopicName, Err: errors.New("it holds the relay's dead letters")}
		return &poisonError{bad.Reason, recordError(record, bad, "correct the topic's name in what writes the event")}
	}
	if bytes+10*int64(len(record.Headers)) > limit { // no header has more around it than 10 bytes
		if n := batchBytes(record); n > limit {
			err := fmt.Errorf("%w: it takes %d bytes before compression, and the topic's max.message.bytes or segment.bytes is %d", kerr.MessageTooLarge, n, limit)
			return &poisonError{reasonTooLarge, recordError(record, err, "")}
		}
	}
	if len(s.judge.verdicts) > 0 {
		if v, ok := s.judge.verdicts[header(record, cloudevent.HeaderPosition)]; ok && v.id == eventID(record) {
			return &poisonError{reasonOf(v.err), recordError(record, v.err, "")}
		}
	}
	return nil
}

// suspected says whether record is to be sent alone.
func (s *session) suspected(record *kgo.Record) bool {
	return s.judge.suspect.first != 0 && s.sequence+1 >= s.judge.suspect.first && record.Topic == s.judge.suspect.topic
}

// acquitted says that record was sent alone and is in Kafka. The batch that
// was refused held no more of its partition than one can; behind that many
// bytes whatever was wrong has passed by itself.
func (s *session) acquitted(ctx context.Context, record *kgo.Record) {
	if record.Partition != s.judge.suspect.partition || record.Topic != s.judge.suspect.topic {
		return
	}
	if s.judge.suspect.bytes -= recordBytes(record); s.judge.suspect.bytes > 0 {
		return
	}
	s.judge.suspect = suspect{}
	s.judge.lessons.acquit()
	s.log.InfoContext(ctx, "the records of the refused batch have been published one by one", slog.String("topic", record.Topic))
}

// refusal ends the session by a record that the client has failed. Nothing is
// waited for any more: records behind it may be in front of it, if it comes
// again. The client calls it, from one goroutine.
func (s *session) refusal(r *kgo.Record, err error) {
	s.failed.Store(true)
	if s.judge.going.Err() != nil && errors.Is(err, context.Canceled) {
		return // held back because another one is refused, whose refusal is still to come
	}
	s.judge.stop()
	if s.judge.sentenced.Swap(true) {
		return // all of the batch and behind it fail; the first tells where it begins
	}
	s.fail(s.sentence(r, err))
	s.give(errGrace)
}

// refused tells a record that Kafka will never take from a failure that may
// pass.
func refused(r *kgo.Record, err error) error {
	if reasonOf(err) == "" {
		return fmt.Errorf("publish to topic %s: %w", r.Topic, err)
	}
	return recordError(r, err, "")
}

// sentence tells what a refusal means, and remembers it for the next session.
func (s *session) sentence(r *kgo.Record, err error) error {
	if reasonOf(err) == "" {
		return refused(r, err) // a new session tries again
	}
	position := header(r, cloudevent.HeaderPosition)
	if position == "" || header(r, headerReason) != "" {
		return refused(r, err) // the stored position, or a dead letter: nothing is left to do
	}
	if s.judge.alone.Load() != r {
		s.judge.lessons.suspected(r, sequenceOf(r), int64(s.topics.batchMaxBytes(r.Topic)))
		return &batchError{Topic: r.Topic, Partition: r.Partition, Err: err}
	}
	if s.cfg.Poison == DeadLetter {
		s.judge.lessons.convicted(position, verdict{id: eventID(r), sequence: sequenceOf(r), err: err})
		return &convictionError{ID: eventID(r), Topic: r.Topic, Err: err}
	}
	return refused(r, err)
}

// A batchError says that a batch was refused, for a record that is not known
// yet.
type batchError struct {
	Topic     string
	Partition int32
	Err       error
}

func (e *batchError) Error() string {
	return fmt.Sprintf("Kafka refuses a batch for topic %s, partition %d: %v", e.Topic, e.Partition, e.Err)
}
func (e *batchError) Unwrap() error { return e.Err }

// A convictionError says that a record was refused that was sent alone.
type convictionError struct {
	ID    string
	Topic string
	Err   error
}

func (e *convictionError) Error() string {
	return fmt.Sprintf("Kafka refuses event %s for topic %s: %v", e.ID, e.Topic, e.Err)
}
func (e *convictionError) Unwrap() error { return e.Err }

// learned reports whether err has told the next session something: it should
// begin at once.
func learned(err error) bool { return isA[*batchError](err) || isA[*convictionError](err) }

// reasonOf names why Kafka refuses a record for good; empty: it may take it
// when it is sent again.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return reasonTooLarge
	case errors.Is(err, kerr.InvalidTimestamp):
		return reasonTimestamp
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return reasonTopicDenied
	case errors.Is(err, kerr.InvalidTopicException):
		return reasonTopicName
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.CorruptMessage), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.UnsupportedForMessageFormat):
		return reasonRefused
	}
	return ""
}

// recordError names record, and what to do where hint says nothing.
func recordError(r *kgo.Record, err error, hint string) *RecordError {
	e := &RecordError{ID: eventID(r), Topic: r.Topic, Key: string(r.Key), Commit: commitOf(r), Err: err, Hint: hint}
	if hint != "" {
		return e
	}
	switch reasonOf(err) {
	case reasonTooLarge:
		e.Hint = "raise the topic: kafka-configs.sh --alter --topic " + r.Topic + " --add-config max.message.bytes=…; and have the writer check sizes (outbox.Writer.MaxBytes)"
	case reasonTopicDenied:
		e.Hint = "allow it: kafka-acls.sh --add --producer --topic " + r.Topic
	case reasonTimestamp:
		e.Hint = "have the topic take it: kafka-configs.sh --alter --topic " + r.Topic + " --add-config message.timestamp.type=LogAppendTime; and see which clock is wrong"
	case reasonTopicName:
		e.Hint = "correct the topic's name in what writes the event"
	default:
		e.Hint = "see the broker's log for the rule it breaks, and change the topic's configuration"
	}
	return e
}

// batchBytes is what the client counts for a batch with nothing but record in
// it, uncompressed.
func batchBytes(r *kgo.Record) int64 {
	const batch = 65 // its header, and the length in front of it
	return batch + recordBytes(r)
}

// recordBytes is what r takes of a batch, at the least.
func recordBytes(r *kgo.Record) int64 {
	n := 3 + kbin.VarintLen(int32(len(r.Key))) + len(r.Key) + kbin.VarintLen(int32(len(r.Value))) + len(r.Value) + kbin.VarintLen(int32(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		n += kbin.VarintLen(int32(len(h.Key))) + len(h.Key) + kbin.VarintLen(int32(len(h.Value))) + len(h.Value)
	}
	return int64(kbin.VarintLen(int32(n)) + n)
}

// header gives the value of a header, "" where there is none.
func header(r *kgo.Record, name string) string {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}

func sequenceOf(r *kgo.Record) int64 {
	n, err := strconv.ParseInt(header(r, cloudevent.HeaderSequence), 10, 64)
	if err != nil {
		return 0 // the relay's own records have one
	}
	return n
}

// commitOf gives the commit LSN of the transaction that r is of; 0: of none.
func commitOf(r *kgo.Record) lsn.Pos {
	_, rest, _ := strings.Cut(header(r, cloudevent.HeaderPosition), "/")
	commit, err := lsn.Parse(rest[:max(0, strings.LastIndexByte(rest, '/'))])
	if err != nil {
		return 0
	}
	return commit
}
