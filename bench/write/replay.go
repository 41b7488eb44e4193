package write

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"
)

// A replayConn is a connection to a real PostgreSQL that can record what the
// server answers and then go on without it: the next requests get the recorded
// answers again, in a circle. What a client costs in Go can be measured so
// without the kernel and the server, whose noise is a hundred times of it.
//
// It knows frames, not messages: an answer is all that the server sends until
// the client ends the next request.
type replayConn struct {
	net.Conn

	mu      sync.Mutex
	arrived sync.Cond // answer is not empty, or the connection closed
	mode    replayMode
	closed  bool
	frames  frameReader
	answers [][]byte
	next    int    // of answers, the one that the next request gets
	answer  []byte // what is not read yet
	buffer  []byte // of answer
}

type replayMode uint8

const (
	live replayMode = iota
	recording
	replaying
)

func newReplayConn(conn net.Conn) *replayConn {
	c := &replayConn{Conn: conn}
	c.arrived.L = &c.mu
	return c
}

// record begins a recording. Nothing must be on its way.
func (c *replayConn) record() { c.set(recording, nil) }

// replay ends the recording, or says that it is empty.
func (c *replayConn) replay() error {
	if len(c.answers) == 0 {
		return errors.New("replay: no request was recorded")
	}
	c.set(replaying, c.answers)
	return nil
}

func (c *replayConn) set(mode replayMode, answers [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode, c.answers, c.next, c.answer = mode, answers, 0, nil
	c.frames = frameReader{}
}

func (c *replayConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.mode == live {
		c.mu.Unlock()
		return c.Conn.Write(b)
	}
	requests := c.frames.read(b)
	if c.mode == recording {
		for range requests {
			c.answers = append(c.answers, nil)
		}
		c.mu.Unlock()
		return c.Conn.Write(b)
	}
	defer c.mu.Unlock()
	for range requests {
		if len(c.answer) == 0 {
			c.answer = c.buffer[:0]
		}
		c.answer = append(c.answer, c.answers[c.next]...)
		c.buffer = c.answer[:0]
		c.next = (c.next + 1) % len(c.answers)
		c.arrived.Signal()
	}
	return len(b), nil
}

func (c *replayConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	if c.mode != replaying {
		c.mu.Unlock()
		n, err := c.Conn.Read(b)
		c.mu.Lock()
		defer c.mu.Unlock()
		if last := len(c.answers) - 1; c.mode == recording && last >= 0 {
			c.answers[last] = append(c.answers[last], b[:n]...)
		}
		return n, err
	}
	defer c.mu.Unlock()
	for len(c.answer) == 0 && !c.closed {
		c.arrived.Wait()
	}
	if c.closed {
		return 0, net.ErrClosed
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (c *replayConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.arrived.Broadcast()
	c.mu.Unlock()
	return c.Conn.Close()
}

// The deadlines are the real connection's: a replay never waits for it.

func (c *replayConn) SetDeadline(t time.Time) error     { return c.Conn.SetDeadline(t) }
func (c *replayConn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// A frameReader follows a stream of PostgreSQL's frames: a type, a length
// that counts itself, and the rest.
type frameReader struct {
	head [5]byte
	have int // of head
	skip int // of the rest
}

// read goes over b, which can end in the middle of a frame, and counts the
// frames that make the server answer: Sync, Query, CopyDone and CopyFail.
func (f *frameReader) read(b []byte) (requests int) {
	for len(b) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(b))
			f.skip, b = f.skip-n, b[n:]
			continue
		}
		n := copy(f.head[f.have:], b)
		f.have, b = f.have+n, b[n:]
		if f.have < len(f.head) {
			break
		}
		f.have, f.skip = 0, int(binary.BigEndian.Uint32(f.head[1:]))-4
		switch f.head[0] {
		case 'S', 'Q', 'c', 'f':
			requests++
		}
	}
	return requests
}
