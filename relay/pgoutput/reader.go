package pgoutput

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// microsecondsTo2000 is PostgreSQL's epoch, 2000-01-01, in Unix time.
const microsecondsTo2000 = 946_684_800_000_000

// Time converts a PostgreSQL timestamp, microseconds since 2000-01-01 UTC.
func Time(microseconds int64) time.Time {
	return time.UnixMicro(microseconds + microsecondsTo2000).UTC()
}

// A reader takes fields off the front of a message. After its first error all
// fields are zero.
type reader struct {
	rest   []byte
	kind   Kind // expected, checked with the first field
	opened bool
	err    error
}

func (r *reader) take(n int) []byte {
	if !r.opened {
		r.opened = true
		if KindOf(r.rest) != r.kind {
			r.err = fmt.Errorf("message of kind %q", KindOf(r.rest))
		} else {
			r.rest = r.rest[1:]
		}
	}
	if r.err == nil && len(r.rest) < n {
		r.err = ErrTruncated
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) time() time.Time { return Time(int64(r.uint64())) }

// bytes takes n bytes. n stands in the message, so it may be any number; the
// comparison is made before a conversion could make it negative.
func (r *reader) bytes(n uint32) []byte {
	if r.err == nil && uint64(n) > uint64(len(r.rest)) {
		r.err = ErrTruncated
	}
	if r.err != nil {
		return nil
	}
	return r.take(int(n))
}

// text takes text up to a NUL.
func (r *reader) text() []byte {
	if r.err != nil {
		return nil
	}
	n := bytes.IndexByte(r.rest, 0)
	if n < 0 {
		r.err = ErrTruncated
		return nil
	}
	s := r.take(n)
	r.take(1)
	return s
}

func (r *reader) string() string { return string(r.text()) }

// end gives the first error, or ErrTrailing where fields are left.
func (r *reader) end(message string) error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = ErrTrailing
	}
	if r.err != nil {
		return fmt.Errorf("decode %s message: %w", message, r.err)
	}
	return nil
}
