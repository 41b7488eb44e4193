package relay

import (
	"context"
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/envelope"
)

// check reads all of an envelope before any of its events is published, so
// that a bad one is refused whole: if it is passed over later, the numbers
// of its events must not have been given out. at is the time of them all; id is
// the event at fault, zero where none of them is.
func (s *session) check(b []byte, at time.Time) (id outbox.ID, err error) {
	r, err := envelope.NewReader(b)
	if err != nil {
		return id, err
	}
	if err := checkTime(at); err != nil {
		return id, err
	}
	for {
		ok, err := r.Next(&s.checked)
		if err != nil || !ok {
			return id, err
		}
		for i := range s.checked.Headers {
			if err := checkHeader(s.checked.Headers[i].Name); err != nil {
				return s.checked.ID, err
			}
		}
	}
}

// unpack publishes the events of an envelope, which [session.check] has let
// through, in their order. at is the time of them all.
func (s *session) unpack(ctx context.Context, b []byte, at time.Time) error {
	r, err := envelope.NewReader(b)
	if err != nil {
		return err
	}
	s.row.json, s.row.createdAt = nil, at
	for {
		ok, err := r.Next(&s.row.Event)
		if err != nil || !ok {
			return err
		}
		record, err := s.router.route(&s.row, s.open.commit, s.open.records, s.sequence+1)
		if err != nil {
			return err
		}
		if err := s.publish(ctx, record); err != nil {
			return err
		}
	}
}
