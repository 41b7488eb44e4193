package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"
)

// What is wrong with an envelope: an [Error] wraps one of these.
var (
	ErrNotEnvelope = errors.New("this is no envelope")
	ErrVersion     = errors.New("unknown version of the envelope")
	ErrEmpty       = errors.New("the envelope holds no event")
	ErrTruncated   = errors.New("the envelope ends inside an event")
	ErrFlags       = errors.New("no event begins like this")
	ErrNumber      = errors.New("a number is out of range")
	ErrText        = errors.New("text is not UTF-8 without NUL")
)

// An Error says where an envelope is wrong.
type Error struct {
	Offset int   // of the byte or field at fault, from the envelope's beginning
	Event  int   // which event it belongs to, from 0
	Err    error // wraps one of the package's errors
}

func (e *Error) Error() string {
	return fmt.Sprintf("decode envelope, event %d at byte %d: %v", e.Event, e.Offset, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// A Reader takes the events out of one envelope, in the order in which they
// were put in. It belongs to one goroutine.
type Reader struct {
	b     []byte
	at    int
	event int   // how many events were read
	last  Event // the fields that the next event may share, without headers
	err   error // once wrong, wrong for good

	// The headers written out last, which the next event may share. What the
	// caller does to its own is of no matter.
	headerCount int
	kept        [keptHeaders]Header // where they are no more
	headersAt   int                 // where they are more: they are read again
}

// keptHeaders is how many headers a Reader keeps: more than metadata and a
// trace need.
const keptHeaders = 8

// NewReader begins to read b, which must stay unchanged while the Reader and
// the events read from it are used. Bytes that are no envelope of this version
// give an [*Error].
func NewReader(b []byte) (Reader, error) {
	switch {
	case len(b) == 0 || b[0] != Magic:
		return Reader{}, &Error{Err: fmt.Errorf("%w: its first byte is not %#x", ErrNotEnvelope, Magic)}
	case len(b) == 1:
		return Reader{}, &Error{Offset: 1, Err: ErrTruncated}
	case b[1] != Version:
		return Reader{}, &Error{Offset: 1, Err: fmt.Errorf("%w: %d, known is %d; a newer walpost wrote it", ErrVersion, b[1], Version)}
	case len(b) == 2:
		return Reader{}, &Error{Offset: 2, Err: ErrEmpty}
	}
	return Reader{b: b, at: 2}, nil
}

// Next reads the next event into e. It reports false behind the last one, and
// with an error, an [*Error] that every later call repeats; e is then of no
// use.
//
// The text and the payload of e point into the bytes given to [NewReader].
// e.Headers is overwritten and grown as needed, so whoever reads many events
// into one e allocates nothing.
func (r *Reader) Next(e *Event) (ok bool, err error) {
	if r.err != nil {
		return false, r.err
	}
	if r.at >= len(r.b) {
		return false, nil
	}
	flags := r.b[r.at]
	if flags&mark == 0 || flags&reserved != 0 {
		r.fail(r.at, fmt.Errorf("%w: its first byte is %#02x", ErrFlags, flags))
		return false, r.err
	}
	r.at++
	copy(e.ID[:], r.take(uint64(len(e.ID))))
	r.textUnless(flags&sameTopic, &r.last.Topic)
	r.textUnless(flags&sameAggregateType, &r.last.AggregateType)
	r.textUnless(flags&sameAggregateID, &r.last.AggregateID)
	r.textUnless(flags&sameType, &r.last.Type)
	e.Topic, e.AggregateType, e.AggregateID, e.Type = r.last.Topic, r.last.AggregateType, r.last.AggregateID, r.last.Type
	e.AggregateVersion = 0
	if flags&hasVersion != 0 {
		e.AggregateVersion = r.version()
	}
	e.Headers = r.readHeaders(flags&sameHeaders != 0, e.Headers[:0])
	e.Payload = r.take(r.uvarint())
	if r.err != nil {
		return false, r.err
	}
	r.event++
	return true, nil
}

func (r *Reader) readHeaders(same bool, dst []Header) []Header {
	switch {
	case !same:
		r.headersAt = r.at
		dst = r.headerList(dst)
		r.headerCount = len(dst)
		copy(r.kept[:], dst)
	case r.headerCount <= keptHeaders:
		dst = append(dst, r.kept[:r.headerCount]...)
	default:
		here := r.at
		r.at = r.headersAt
		dst = r.headerList(dst)
		r.at = here
	}
	return dst
}

func (r *Reader) headerList(dst []Header) []Header {
	at := r.at
	n := r.uvarint()
	// A header is two bytes at least: a larger count is refused before memory
	// is taken for it.
	if n > uint64(len(r.b)-r.at)/2 {
		r.fail(at, ErrTruncated)
	}
	for i := uint64(0); i < n && r.err == nil; i++ {
		name := r.text()
		dst = append(dst, Header{Name: name, Value: r.text()})
	}
	return dst
}

func (r *Reader) textUnless(same byte, field *string) {
	if same == 0 {
		*field = r.text()
	}
}

func (r *Reader) text() string {
	n := r.uvarint()
	at := r.at
	b := r.take(n)
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		r.fail(at, ErrText)
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// version reads a version that was written because it is not 0.
func (r *Reader) version() int64 {
	at := r.at
	n := r.uvarint()
	if n == 0 || n > math.MaxInt64 {
		r.fail(at, fmt.Errorf("%w: aggregate version %d", ErrNumber, n))
	}
	return int64(n)
}

func (r *Reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	n, size := binary.Uvarint(r.b[r.at:])
	switch {
	case size == 0:
		r.fail(r.at, ErrTruncated)
		return 0
	case size < 0:
		r.fail(r.at, fmt.Errorf("%w: it has more than 64 bits", ErrNumber))
		return 0
	}
	r.at += size
	return n
}

// take gives the next n bytes. n stands in the envelope, so it may be any
// number.
func (r *Reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.b)-r.at) {
		r.fail(r.at, ErrTruncated)
	}
	if r.err != nil {
		return nil
	}
	b := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return b
}

// fail keeps the first error.
func (r *Reader) fail(offset int, err error) {
	if r.err == nil {
		r.err = &Error{Offset: offset, Event: r.event, Err: err}
	}
}
