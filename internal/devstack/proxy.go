package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// A Direction is one way through a [Proxy], or both.
type Direction uint8

// The directions.
const (
	ToServer Direction = 1 << iota
	ToClient
	BothWays = ToServer | ToClient
)

// A Proxy passes TCP connections on to a server, and breaks them as it is told:
// the network between two programs, for tests. It carries any protocol in
// which the server does not tell its clients another address; for Kafka see
// [KafkaOptions].Proxy. All methods are for any goroutine.
type Proxy struct {
	// Addr is where clients connect: 127.0.0.1 and a port.
	Addr string

	listener net.Listener
	running  sync.WaitGroup
	ctx      context.Context // ends the dialling of every connection at Close
	close    context.CancelFunc

	mu      sync.Mutex
	target  string
	links   map[*link]struct{}
	faults  faults
	changed chan struct{} // closed and made anew when faults change
	traffic Traffic
	failed  error // why no more connections are accepted
}

// faults are what is wrong with the network now.
type faults struct {
	hole   Direction
	delay  time.Duration
	rate   int64 // bytes a second, each way of each connection; 0: no bound
	refuse bool

	cutWay  Direction // 0: no cut is planned
	cutLeft int64
	cutDone chan struct{}
}

// Traffic is what a [Proxy] has passed on since its start.
type Traffic struct {
	Connections        int64 // accepted and not refused
	ToServer, ToClient int64 // bytes
}

// StartProxy listens on a free port of 127.0.0.1 and passes connections on to
// target, host:port. An empty target is to be given by [Proxy.Redirect]; until
// then connections are cut. ctx is for the start only. Call Close at the end.
func StartProxy(ctx context.Context, target string) (*Proxy, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy for %s: %w", target, err)
	}
	p := &Proxy{
		Addr: listener.Addr().String(), listener: listener, target: target,
		links: make(map[*link]struct{}), changed: make(chan struct{}),
	}
	p.ctx, p.close = context.WithCancel(context.WithoutCancel(ctx))
	p.running.Go(p.accept)
	return p, nil
}

// Close stops listening, cuts every connection, and returns when all that the
// proxy started has ended.
func (p *Proxy) Close() error {
	p.close()
	err := p.listener.Close()
	p.Cut()
	p.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil // closed before
	}
	return errors.Join(p.failed, err)
}

// Redirect passes connections made from now on to target.
func (p *Proxy) Redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// DSN gives a PostgreSQL URL that leads to the same database by way of the
// proxy.
func (p *Proxy) DSN(dsn string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("parse a DSN: %w", err)
	}
	u.Host = p.Addr
	return u.String(), nil
}

// Cut ends all connections with a reset. What is under way in them is lost.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for l := range p.links {
		l.reset()
	}
}

// CutAfter cuts all connections when n more bytes have passed in a direction,
// between that byte and the next. The channel is closed when it is done.
func (p *Proxy) CutAfter(way Direction, n int64) <-chan struct{} {
	done := make(chan struct{})
	p.change(func(f *faults) { f.cutWay, f.cutLeft, f.cutDone = way, n, done })
	return done
}

// Blackhole lets nothing pass in a direction any more, no bytes and no end of
// a connection, and closes nothing. New connections wait in it. What is sent
// meanwhile arrives after [Proxy.Heal].
func (p *Proxy) Blackhole(way Direction) {
	p.change(func(f *faults) { f.hole = way })
}

// Strand is a blackhole for the connections of now that Heal does not end,
// while new connections pass: as when the network forgets them, or an address
// moves. Neither end hears of it.
func (p *Proxy) Strand() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.stranded = true
	}
	p.wake()
}

// Delay makes all bytes arrive later by d, in both directions.
func (p *Proxy) Delay(d time.Duration) {
	p.change(func(f *faults) { f.delay = d })
}

// Throttle bounds each direction of each connection, in bytes a second.
func (p *Proxy) Throttle(rate int64) {
	p.change(func(f *faults) { f.rate = rate })
}

// Refuse resets new connections as soon as they are made.
func (p *Proxy) Refuse() {
	p.change(func(f *faults) { f.refuse = true })
}

// Heal ends every fault. Connections that are cut or stranded stay so.
func (p *Proxy) Heal() {
	p.change(func(f *faults) { *f = faults{} })
}

// Traffic gives what has passed so far.
func (p *Proxy) Traffic() Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.traffic
}

func (p *Proxy) change(f func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.faults)
	p.wake()
}

// wake lets every connection look at the faults again. p.mu is held.
func (p *Proxy) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}
