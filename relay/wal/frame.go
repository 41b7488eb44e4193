package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

const (
	// bufferSize is how much is asked of the connection at once. One buffer
	// holds some hundred rows, so that a system call is shared by as many.
	bufferSize = 256 << 10

	// maxFrame is the largest message PostgreSQL builds: 1 GB.
	maxFrame = 1 << 30
)

// ErrInterrupted says that [Stream.Interrupt] ended a Next.
var ErrInterrupted = errors.New("replication stream was interrupted")

// A frameReader reads the frames of PostgreSQL's protocol: a byte of kind, a
// length that counts itself, a body.
type frameReader struct {
	conn        net.Conn
	buf         []byte
	start, end  int // what of buf is read and not yet used
	interrupted atomic.Bool
	closing     bool // the deadline is Close's
}

// next gives the next frame. The body is valid until the next call.
func (f *frameReader) next() (kind byte, body []byte, err error) {
	if err := f.fill(5); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(f.buf[f.start+1:])
	if size < 4 || size > maxFrame {
		return 0, nil, fmt.Errorf("frame %q has length %d: not PostgreSQL's protocol", f.buf[f.start], size)
	}
	whole := int(size) + 1
	if err := f.fill(whole); err != nil {
		return 0, nil, err
	}
	frame := f.buf[f.start : f.start+whole : f.start+whole]
	f.start += whole
	return frame[0], frame[5:], nil
}

// fill reads until n bytes are there behind start.
func (f *frameReader) fill(n int) error {
	if f.end-f.start >= n {
		return nil
	}
	f.makeRoom(n)
	for f.end-f.start < n {
		if !f.closing {
			if err := f.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
				return err
			}
			// Interrupt sets its flag before its deadline: if ours came after
			// its, the flag is seen here.
			if f.interrupted.Load() {
				return ErrInterrupted
			}
		}
		got, err := f.conn.Read(f.buf[f.end:])
		f.end += got
		if f.end-f.start >= n {
			return nil
		}
		if err != nil {
			return f.readError(err)
		}
	}
	return nil
}

func (f *frameReader) readError(err error) error {
	if f.interrupted.Load() {
		return ErrInterrupted
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the server closed the connection")
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !f.closing {
		return fmt.Errorf("the server sent nothing for %v: %w", silence, err)
	}
	return err
}

// makeRoom moves what is left to the front of a buffer that holds n bytes. A
// frame larger than the buffer gets a buffer of its own, which is given up
// again after it.
func (f *frameReader) makeRoom(n int) {
	rest := f.buf[f.start:f.end]
	switch {
	case n > len(f.buf):
		f.buf = make([]byte, max(n, bufferSize))
	case len(f.buf) > bufferSize && max(n, len(rest)) <= bufferSize:
		f.buf = make([]byte, bufferSize)
	}
	f.end = copy(f.buf, rest)
	f.start = 0
}
