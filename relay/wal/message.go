package wal

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// A Message is one message of a stream: plugin data, or a keepalive.
type Message struct {
	// Data is what the output plugin wrote; nil in a keepalive. It is valid
	// until the next call of Next.
	Data []byte

	// Start is where the change stands in the log: a row where its record
	// begins, a logical decoding message where its record ends. It is 0 where
	// there is no such place, as of a table's description.
	Start lsn.Pos

	// End is, in a keepalive, the position up to which the server has sent
	// everything. It may be confirmed once all that came before is done.
	End lsn.Pos

	// Reply says that the server wants to hear from us now.
	Reply bool
}

// Next waits for the next message. It returns [ErrInterrupted] after
// Interrupt, and the server's error when the server ends the stream.
func (s *Stream) Next() (Message, error) {
	for {
		kind, body, err := s.frames.next()
		if err != nil {
			return Message{}, fmt.Errorf("read the replication stream: %w", err)
		}
		switch kind {
		case 'd': // CopyData
			return parse(body)
		case 'c': // CopyDone
			return Message{}, fmt.Errorf("read the replication stream: the server ended it")
		case 'E':
			return Message{}, fmt.Errorf("read the replication stream: %w", serverError(body))
		}
	}
}

func parse(b []byte) (Message, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w': // XLogData: start, end, time, data
		return Message{Data: b[25:], Start: lsn.Pos(binary.BigEndian.Uint64(b[1:]))}, nil
	case len(b) == 18 && b[0] == 'k': // keepalive: end, time, reply
		return Message{End: lsn.Pos(binary.BigEndian.Uint64(b[1:])), Reply: b[17] == 1}, nil
	}
	return Message{}, fmt.Errorf("read the replication stream: unknown message of %d bytes beginning %q", len(b), b[:min(len(b), 8)])
}

// Confirm tells the server that everything before pos is durable elsewhere,
// and asks it for an answer when reply is set. PostgreSQL believes any
// position, later ones than it has written and, in old versions, earlier ones
// than before: the caller keeps it right.
func (s *Stream) Confirm(pos lsn.Pos, reply bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	b := append(s.status[:0], 'd', 0, 0, 0, 4+1+8+8+8+8+1, 'r')
	for range 3 { // written, flushed and applied
		b = binary.BigEndian.AppendUint64(b, uint64(pos))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMicro()-microsecondsTo2000))
	if reply {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	s.status = b
	if err := s.conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return fmt.Errorf("confirm %v: %w", pos, err)
	}
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("confirm %v: %w", pos, err)
	}
	return nil
}

// microsecondsTo2000 is PostgreSQL's epoch, 2000-01-01, in Unix time.
const microsecondsTo2000 = 946_684_800_000_000
