package relay

import (
	"context"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/wal"
)

// A hold keeps the rows of one record of the log back until the message behind
// them has been read, which may belong in front of them.
//
// PostgreSQL sends the changes of a transaction and its savepoints by their
// places in the log, and of a row that is where its record begins, but of a
// logical decoding message where it ends. So a message and a row directly
// behind it have one place, and where the two are on different sides of a
// savepoint they come in either order. The message was first.
type hold struct {
	at   lsn.Pos // of the rows
	data []byte  // the rows' messages, one behind the other
	ends []int   // of each in data
}

func (h *hold) add(m wal.Message) {
	h.at = m.Start
	h.data = append(h.data, m.Data...)
	h.ends = append(h.ends, len(h.data))
}

// maxHeld is how much memory a hold keeps for the next rows.
const maxHeld = 256 << 10

func (h *hold) clear() {
	if h.at, h.ends = 0, h.ends[:0]; cap(h.data) > maxHeld {
		h.data = nil
	}
	h.data = h.data[:0]
}

// order decodes what the stream gives in the order in which it was written.
func (s *session) order(ctx context.Context, m wal.Message) error {
	if m.Start != s.held.at || m.Start == 0 {
		if err := s.release(ctx); err != nil {
			return err
		}
	}
	if pgoutput.KindOf(m.Data) == pgoutput.KindInsert && s.cfg.Messages == ReadMessages {
		s.held.add(m)
		return nil
	}
	if err := s.decode(ctx, m.Data); err != nil {
		return err
	}
	return s.release(ctx) // rows in the place of the message just decoded
}

// release decodes the rows that are held.
func (s *session) release(ctx context.Context) error {
	begin := 0
	for _, end := range s.held.ends {
		if err := s.decode(ctx, s.held.data[begin:end]); err != nil {
			return err
		}
		begin = end
	}
	s.held.clear()
	return nil
}
