package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/pgoutput"
)

// message publishes the events of a logical decoding message. Those of others
// are passed over without a word: any extension may write one.
func (s *session) message(ctx context.Context, b []byte) error {
	m, err := pgoutput.ParseMessage(b)
	if err != nil || string(m.Prefix) != s.cfg.MessagePrefix {
		return err
	}
	t := s.open
	if m.Transactional {
		if t == nil {
			return errors.New("transactional message outside a transaction in the replication stream")
		}
		if t.skip {
			return nil
		}
	}
	if slices.Contains(s.cfg.SkipMessages, m.LSN) {
		s.log.WarnContext(ctx, "message passed over as told; its events are not published", slog.Any("message", m.LSN))
		return nil
	}
	if !m.Transactional {
		return s.refuse(ctx, m, errors.New("it is not transactional, so its events may tell of what was rolled back: emit with pg_logical_emit_message(true, …)"))
	}
	if len(m.Content) < envelope.TimeBytes {
		return s.refuse(ctx, m, fmt.Errorf("%d bytes are no time and envelope", len(m.Content)))
	}
	events := m.Content[envelope.TimeBytes:]
	at := pgoutput.Time(int64(binary.BigEndian.Uint64(m.Content)))
	if id, err := s.check(events, at); err != nil {
		if !id.IsZero() {
			err = fmt.Errorf("event %v: %w", id, err)
		}
		return s.refuse(ctx, m, err)
	}
	return s.unpack(ctx, events, at)
}

// refuse does with a message that can't be published what Config.Poison says.
func (s *session) refuse(ctx context.Context, m pgoutput.Message, err error) error {
	e := &MessageError{LSN: m.LSN, Prefix: s.cfg.MessagePrefix, Err: err}
	if !m.Transactional {
		return s.stray(ctx, m, e)
	}
	e.Commit = s.open.commit
	return s.invalidMessage(ctx, m, e)
}
