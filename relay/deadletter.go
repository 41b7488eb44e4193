package relay

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// DefaultDeadLetterTopic gets the events that can't be published.
const DefaultDeadLetterTopic = "_relay.dead-letters"

// Headers of a dead letter, beside those of the event; see
// docs/formats/dead-letters.md.
const (
	headerPrefix       = "walpost_"
	headerReason       = headerPrefix + "reason"
	headerError        = headerPrefix + "error"
	headerTopic        = headerPrefix + "topic"
	headerPayload      = headerPrefix + "payload"
	headerPayloadBytes = headerPrefix + "payload_bytes"
	headerHeaders      = headerPrefix + "headers"
	headerRow          = headerPrefix + "row_headers" // column headers of a row that could not be read
)

const (
	// maxLetterText bounds what a letter says in a header of its own, and an
	// attribute of the event where there is no room for all.
	maxLetterText = 1024

	// letterRoom is kept free in a letter for what is around the payload.
	letterRoom = 16
)

// bury does with record what Config.Poison says: stop with the error of p, or
// hand the dead letter on in its place. Nothing else is on its way then, and
// nothing follows before Kafka has it.
func (s *session) bury(ctx context.Context, record *kgo.Record, p *poisonError) error {
	if s.cfg.Poison != DeadLetter {
		return p.err
	}
	limit, err := s.topics.ensure(ctx, s.admin, s.cfg.DeadLetterTopic)
	if err != nil {
		return err
	}
	letter := deadLetter(record, s.cfg.DeadLetterTopic, p, limit)
	s.log.WarnContext(ctx, "event goes to the dead-letter topic", slog.String("id", eventID(letter)), slog.String("reason", p.reason),
		slog.String("topic", record.Topic), slog.String("position", header(letter, cloudevent.HeaderPosition)), slog.Int64("sequence", s.sequence+1),
		slog.String("payload", header(letter, headerPayload)), slog.Any("error", p.err))
	s.judge.letters.add(s.sequence+1, p.reason)
	return s.hand(ctx, letter, size(letter), true)
}

// deadLetter makes the dead letter of record, which is at most limit bytes
// long where any record can be. It shares the record's memory.
func deadLetter(record *kgo.Record, topic string, p *poisonError, limit int64) *kgo.Record {
	letter := &kgo.Record{
		Topic: topic, Key: record.Key, Value: record.Value,
		Timestamp: time.Now(), // the event's own may be what is wrong with it
	}
	said := []kgo.RecordHeader{
		{Key: headerReason, Value: []byte(p.reason)},
		{Key: headerError, Value: []byte(cutText(p.err.Error()))},
		{Key: headerTopic, Value: []byte(cutText(record.Topic))},
		{Key: headerPayload, Value: []byte("whole")},
		{Key: headerPayloadBytes, Value: strconv.AppendInt(nil, int64(len(record.Value)), 10)},
		{Key: headerHeaders, Value: []byte("whole")},
	}
	const payload, headers = 3, 5 // of said
	var own []kgo.RecordHeader
	for _, h := range record.Headers {
		if !strings.HasPrefix(h.Key, headerPrefix) || h.Key == headerRow { // the others are the letter's
			own = append(own, h)
		}
	}
	letter.Headers = append(own, said...)
	if batchBytes(letter) <= limit {
		return letter
	}
	letter.Value = nil
	if batchBytes(letter)+letterRoom > limit {
		said[headers].Value = []byte("cut")
		letter.Key = letter.Key[:min(len(letter.Key), maxLetterText)]
		letter.Headers = append(attributes(own), said...)
	}
	last := letter.Headers[len(letter.Headers)-len(said):]
	room := min(int64(len(record.Value)), limit-batchBytes(letter)-letterRoom)
	switch {
	case room == int64(len(record.Value)):
		letter.Value = record.Value
	case room > 0:
		letter.Value = record.Value[:room]
		last[payload].Value = []byte("cut")
	default:
		last[payload].Value = []byte("omitted")
	}
	return letter
}

// attributes gives what makes headers an event, each cut to what can't be too
// much.
func attributes(headers []kgo.RecordHeader) []kgo.RecordHeader {
	var kept []kgo.RecordHeader
	for _, h := range headers {
		if strings.HasPrefix(h.Key, "ce_") || h.Key == cloudevent.HeaderContentType {
			kept = append(kept, kgo.RecordHeader{Key: h.Key, Value: []byte(cutText(string(h.Value)))})
		}
	}
	return kept
}

func cutText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxLetterText)], "")
}

// letters are the dead letters that the stored position does not cover yet.
// The zero letters is ready to use, and safe for concurrent use.
type letters struct {
	mu      sync.Mutex
	waiting []waitingLetter // in the order of their sequences
}

type waitingLetter struct {
	sequence int64
	reason   string
}

func (l *letters) add(sequence int64, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, waitingLetter{sequence, reason})
}

// stored gives the reasons of those up to sequence, each letter once.
func (l *letters) stored(sequence int64) (reasons []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 && l.waiting[0].sequence <= sequence {
		reasons = append(reasons, l.waiting[0].reason)
		l.waiting = l.waiting[1:]
	}
	return reasons
}

// count counts the dead letters that the position stored behind sequence
// covers.
func (s *session) count(sequence int64) {
	reasons := s.judge.letters.stored(sequence)
	for _, reason := range reasons {
		s.metrics.letters.WithLabelValues(reason).Inc()
	}
	if len(reasons) > 0 {
		s.judge.lessons.served(sequence)
	}
}
