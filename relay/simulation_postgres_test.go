package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A simPostgres is a server with one database, one outbox and one slot.
type simPostgres struct {
	down    bool
	log     []*simCommit
	end     lsn.Pos // of the log
	forward bool    // a confirmed position never goes back: newer servers

	published bool
	exists    bool // the slot
	confirmed lsn.Pos
	kept      lsn.Pos // confirmed, as of the last checkpoint
	active    *simStream
	held      *simDatabase // the lock
	opened    bool         // a stream has been: there may be events

	databases []*simDatabase
}

// A simDatabase is a [database].
type simDatabase struct {
	sim   *simulation
	relay *simRelay
	number,
	opened int // streams

	lost  bool // the server has ended it
	left  bool // the client has
	heard time.Time
	taken *simStream
}

var (
	errSimLost = errors.New("simulated: connection lost")
	errSimDead = errors.New("simulated: the process is dead")
)

// ask has the server do serve once it is ready; nil: at once.
func (d *simDatabase) ask(ctx context.Context, order int, what string, ready func() bool, serve func() error) error {
	return d.sim.call(ctx, &simCall{
		relay: d.relay, key: d.number<<8 | order, what: what,
		ready: func() bool { return d.lost || ready == nil || ready() },
		serve: func() error {
			if d.lost {
				return errSimLost
			}
			d.heard = time.Now()
			return serve()
		},
	})
}

func (d *simDatabase) lock(ctx context.Context) error {
	p := &d.sim.postgres
	return d.ask(ctx, 1, "take the lock", func() bool { return p.held == nil }, func() error {
		p.held = d
		d.sim.kafka.expire(d.relay)
		return nil
	})
}

func (d *simDatabase) holds(ctx context.Context) error {
	p := &d.sim.postgres
	return d.ask(ctx, 2, "hold the slot", nil, func() error {
		if p.active == nil || p.active != d.taken {
			return errors.New("simulated: the slot is no longer this relay's")
		}
		return nil
	})
}

func (d *simDatabase) inspect(ctx context.Context) (state slot.State, err error) {
	p := &d.sim.postgres
	err = d.ask(ctx, 3, "inspect", nil, func() error {
		state = slot.State{
			SystemID: "7", Database: "sim", Namespace: "public", Table: "outbox", TableOID: simTable,
			Published: p.published, Exists: p.exists, Confirmed: p.confirmed,
		}
		if p.active != nil {
			state.ActivePID = 1
		}
		return nil
	})
	return state, err
}

func (d *simDatabase) publish(ctx context.Context, _ slot.State) error {
	return d.ask(ctx, 4, "publish", nil, func() error {
		if d.sim.postgres.published {
			return &pgconn.PgError{Code: "XX000", Message: "publication exists"}
		}
		d.sim.postgres.published = true
		return nil
	})
}

func (d *simDatabase) create(ctx context.Context, _ slot.State) (created slot.Created, err error) {
	p := &d.sim.postgres
	err = d.ask(ctx, 5, "create the slot", nil, func() error {
		if p.exists {
			return &pgconn.PgError{Code: "XX000", Message: "slot exists"}
		}
		p.exists, p.confirmed, p.kept = true, p.end, p.end
		created = slot.Created{Start: p.end, ExistingRows: len(p.log) > 0}
		return nil
	})
	return created, err
}

func (d *simDatabase) drop(ctx context.Context) error {
	p := &d.sim.postgres
	return d.ask(ctx, 6, "drop the slot", nil, func() error {
		switch {
		case !p.exists:
			return &pgconn.PgError{Code: slot.CodeMissing}
		case p.active != nil:
			return &pgconn.PgError{Code: slot.CodeBusy}
		case p.opened:
			d.sim.violated("the slot is dropped although events may be in front of it")
		}
		p.exists = false
		return nil
	})
}

func (d *simDatabase) stream(ctx context.Context, start lsn.Pos) (stream, error) {
	p := &d.sim.postgres
	var s *simStream
	err := d.ask(ctx, 7, "stream from "+start.String(), nil, func() error {
		switch {
		case !p.exists:
			return &pgconn.PgError{Code: slot.CodeMissing}
		case p.active != nil:
			return &pgconn.PgError{Code: slot.CodeBusy}
		}
		d.opened++
		s = &simStream{
			sim: d.sim, relay: d.relay, key: d.number<<8 | d.opened, database: d,
			from: max(start, p.confirmed), heard: time.Now(), told: start,
		}
		s.sent = s.from
		for s.next < len(p.log) && p.log[s.next].commit < s.from {
			s.next++
		}
		p.active, p.opened, d.taken = s, true, s
		d.sim.kafka.expire(d.relay)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (d *simDatabase) close(context.Context) error {
	d.sim.mu.Lock()
	defer d.sim.mu.Unlock()
	d.left = true
	if d.taken != nil {
		d.taken.left = true // it may be open when its start was cut off
	}
	return nil
}

// end has the server end d and what it holds. A client that is reached sees
// it when it asks next.
func (p *simPostgres) endDatabase(d *simDatabase) {
	d.lost = true
	if p.held == d {
		p.held = nil
	}
}

// endStream has the server end s, and the slot is free.
func (p *simPostgres) endStream(s *simStream, why error) {
	s.lost = why
	if p.active == s {
		p.active = nil
	}
}

// crash ends every connection, and forgets what was confirmed since the last
// checkpoint.
func (p *simPostgres) crash() {
	p.down = true
	for _, d := range p.databases {
		p.endDatabase(d)
	}
	if p.active != nil {
		p.endStream(p.active, errSimLost)
	}
	p.confirmed = p.kept
}

// expire ends what has been silent for too long.
func (p *simPostgres) expire(now time.Time, timeout time.Duration) {
	if d := p.held; d != nil && now.Sub(d.heard) > timeout {
		p.endDatabase(d)
	}
	if s := p.active; s != nil && now.Sub(s.heard) > timeout {
		p.endStream(s, fmt.Errorf("%w: nothing heard for %v", errSimLost, timeout))
	}
}

// confirm does as told.
func (p *simPostgres) confirm(pos lsn.Pos) {
	if pos > p.confirmed || !p.forward && pos != 0 {
		p.confirmed = pos
	}
}
