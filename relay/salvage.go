package relay

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

// Types of dead letters that are no event, since none could be read.
const (
	typeRow     = "walpost.row"
	typeMessage = "walpost.message"
)

// mediaBytes is the content type of a payload that is nobody's event.
const mediaBytes = "application/octet-stream"

// salvage reads what can be read of a row: what is missing or of another form
// is left out.
func (l *layout) salvage(values []pgoutput.Column, r *row) {
	var fields [columnCount][]byte
	for i, j := range l.index {
		if j >= len(values) || values[j].Format != pgoutput.Binary {
			continue
		}
		fields[i] = values[j].Data
		if l.jsonb[i] && len(fields[i]) > 0 {
			fields[i] = fields[i][1:]
		}
	}
	*r = row{
		Event: envelope.Event{
			Topic:         view(fields[colTopic]),
			AggregateType: view(fields[colAggregateType]),
			AggregateID:   view(fields[colAggregateID]),
			Type:          view(fields[colType]),
			Headers:       r.Headers[:0],
			Payload:       fields[colPayload],
		},
		json: fields[colHeaders],
	}
	if len(fields[colID]) == 16 {
		r.ID = [16]byte(fields[colID])
	}
	if len(fields[colAggregateVersion]) == 8 {
		r.AggregateVersion = int64(binary.BigEndian.Uint64(fields[colAggregateVersion]))
	}
	if len(fields[colCreatedAt]) == 8 {
		r.createdAt = pgoutput.Time(int64(binary.BigEndian.Uint64(fields[colCreatedAt])))
	}
}

// invalid does with a row that no record can be made of what Config.Poison
// says: it is one event of the sequence, whatever is in it. r is read and
// changed.
func (s *session) invalid(ctx context.Context, r *row, p *poisonError) error {
	t := s.open
	if s.cfg.Poison != DeadLetter && t.records >= t.published {
		return p.err
	}
	record, err := s.remains(r, t)
	if err != nil {
		return err
	}
	if t.records < t.published {
		return s.passOver(t, record)
	}
	return s.bury(ctx, record, p)
}

// remains makes a record of what is left of r.
func (s *session) remains(r *row, t *transaction) (*kgo.Record, error) {
	headers := r.json
	r.json, r.AggregateVersion = nil, max(r.AggregateVersion, 0)
	if r.createdAt.IsZero() || checkTime(r.createdAt) != nil {
		r.createdAt = t.at
	}
	if r.Type == "" {
		r.Type = typeRow
	}
	record, err := s.router.route(r, t.commit, t.records, s.sequence+1)
	if err != nil {
		return nil, fmt.Errorf("make a dead letter: %w", err)
	}
	record.Topic = s.router.names.get(r.Topic)
	if outbox.ID(r.ID).IsZero() {
		// The place in the log is the row's alone, and the same at every start.
		for i := range record.Headers {
			if record.Headers[i].Key == cloudevent.HeaderID {
				record.Headers[i].Value = []byte(header(record, cloudevent.HeaderPosition))
			}
		}
	}
	if len(headers) > 0 {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: headerRow, Value: append([]byte(nil), headers...)})
	}
	return record, nil
}

// unread gives a row whose payload could not be read as events.
func unread(r row, what string, payload []byte) row {
	r.json, r.Type, r.Payload = nil, what, payload
	r.Headers = append(r.Headers[:0], envelope.Header{Name: outbox.HeaderContentType, Value: mediaBytes})
	return r
}

// checkTime refuses a time that an attribute can't name: RFC 3339 has four
// digits for the year.
func checkTime(at time.Time) error {
	const first, last = -62135596800, 253402300799 // of the years 1 and 9999
	if s := at.Unix(); s < first || s > last {
		return fmt.Errorf("created_at is in the year %d, and an event's time has one from 1 to 9999", at.Year())
	}
	return nil
}

// stray does with a message outside of any transaction what Config.Poison
// says. It is taken for a transaction of its own, whose commit record is in its
// place: so it is known again, and confirmed, by its position.
func (s *session) stray(ctx context.Context, m pgoutput.Message, e *MessageError) error {
	if s.open == nil {
		commit := m.LSN - 1 // inside its record, so that no commit record can begin there
		t := s.begin(pgoutput.Begin{FinalLSN: commit, CommitTime: time.Now()})
		if t.skip {
			return nil
		}
		s.open = t
		if err := s.invalidMessage(ctx, m, e); err != nil {
			return err
		}
		return s.commit(pgoutput.Commit{CommitLSN: commit, EndLSN: m.LSN})
	}
	return s.invalidMessage(ctx, m, e)
}

func (s *session) invalidMessage(ctx context.Context, m pgoutput.Message, e *MessageError) error {
	r := unread(row{createdAt: s.open.at}, typeMessage, m.Content)
	return s.invalid(ctx, &r, &poisonError{reasonMessage, e})
}
