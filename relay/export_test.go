package relay

import (
	"context"
	"sync"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/wal"
)

// HoldReader makes the reader of r stand still at the next message of its
// stream, while everything else of it goes on, from hold until release. Call it
// before Run. A Run whose reader is held does not end.
func HoldReader(r *Relay) (hold, release func()) {
	o := &heldOutside{outside: r.outside, held: make(chan struct{}), released: make(chan struct{})}
	r.outside = o
	return func() { close(o.held) }, sync.OnceFunc(func() { close(o.released) })
}

type heldOutside struct {
	outside
	held, released chan struct{}
}

func (o *heldOutside) database(ctx context.Context) (database, error) {
	d, err := o.outside.database(ctx)
	if err != nil {
		return nil, err
	}
	return &heldDatabase{d, o}, nil
}

type heldDatabase struct {
	database
	o *heldOutside
}

func (d *heldDatabase) stream(ctx context.Context, start lsn.Pos) (stream, error) {
	s, err := d.database.stream(ctx, start)
	if err != nil {
		return nil, err
	}
	return &heldStream{s, d.o}, nil
}

type heldStream struct {
	stream
	o *heldOutside
}

func (s *heldStream) Next() (wal.Message, error) {
	m, err := s.stream.Next()
	select {
	case <-s.o.held:
		<-s.o.released
	default:
	}
	return m, err
}
