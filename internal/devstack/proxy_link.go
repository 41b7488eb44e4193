package devstack

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A link is one connection through a [Proxy].
type link struct {
	proxy    *Proxy
	client   *net.TCPConn
	stranded bool // guarded by proxy.mu

	mu     sync.Mutex
	server *net.TCPConn  // nil until it is connected
	done   chan struct{} // closed by reset
	ended  sync.Once
}

// reset ends both connections so that the peers are told of a reset.
func (l *link) reset() {
	l.ended.Do(func() {
		close(l.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		abort(l.client)
		if l.server != nil {
			abort(l.server)
		}
	})
}

// abort closes with RST instead of FIN. It fails only on a closed connection.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.failed = err // read by Close after this goroutine
			}
			return
		}
		client, ok := conn.(*net.TCPConn)
		if !ok {
			_ = conn.Close() // a TCP listener gives none
			continue
		}
		l := &link{proxy: p, client: client, done: make(chan struct{})}
		p.mu.Lock()
		refuse := p.faults.refuse || p.ctx.Err() != nil
		if !refuse {
			p.links[l] = struct{}{}
			p.traffic.Connections++
		}
		p.mu.Unlock()
		if refuse {
			abort(client)
			continue
		}
		p.running.Go(l.serve)
	}
}

// serve connects to the server, unless that is in a blackhole, and passes
// bytes until both directions have ended.
func (l *link) serve() {
	defer func() {
		l.reset() // both ends have been told, or are to be
		l.proxy.mu.Lock()
		delete(l.proxy.links, l)
		l.proxy.mu.Unlock()
	}()
	if !l.pass(BothWays) || !l.dial() {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.carry(l.client, l.server, ToServer) })
	both.Go(func() { l.carry(l.server, l.client, ToClient) })
	both.Wait()
}

func (l *link) dial() bool {
	l.proxy.mu.Lock()
	target := l.proxy.target
	l.proxy.mu.Unlock()
	var d net.Dialer
	conn, err := d.DialContext(l.proxy.ctx, "tcp", target)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	server, ok := conn.(*net.TCPConn)
	select {
	case <-l.done:
		ok = false
	default:
	}
	if !ok {
		_ = conn.Close()
		return false
	}
	l.server = server
	return true
}

// A chunk is on its way through the network.
type chunk struct {
	data []byte
	at   time.Time // when it was sent
	end  error     // behind data; nil: goes on
}

// inFlight is how many chunks are on their way at most, each of chunkSize.
const (
	inFlight  = 32
	chunkSize = 32 << 10
)

// carry passes the bytes of one direction from one end to the other.
func (l *link) carry(from, to *net.TCPConn, way Direction) {
	chunks := make(chan chunk, inFlight)
	var reading sync.WaitGroup
	reading.Go(func() {
		for ended := false; !ended; {
			c := chunk{data: make([]byte, chunkSize)}
			var n int
			n, c.end = from.Read(c.data)
			c.data, c.at = c.data[:n], time.Now()
			ended = c.end != nil
			select {
			case chunks <- c:
			case <-l.done:
				return
			}
		}
	})
	defer reading.Wait()
	for {
		var c chunk
		select {
		case c = <-chunks:
		case <-l.done:
			return
		}
		if !l.deliver(c, to, way) {
			return
		}
	}
}

// deliver writes c when the network lets it through, and tells whether more
// may follow.
func (l *link) deliver(c chunk, to *net.TCPConn, way Direction) bool {
	l.proxy.mu.Lock()
	delay, rate := l.proxy.faults.delay, l.proxy.faults.rate
	l.proxy.mu.Unlock()
	wait := time.Until(c.at.Add(delay))
	if rate > 0 {
		wait = max(wait, time.Duration(int64(len(c.data))*int64(time.Second)/rate))
	}
	if !l.pause(wait) || !l.pass(way) {
		return false
	}
	n, cut := l.proxy.count(way, len(c.data))
	if _, err := to.Write(c.data[:n]); err != nil {
		l.reset()
		return false
	}
	if cut != nil {
		l.proxy.Cut()
		close(cut)
		return false
	}
	switch {
	case c.end == nil:
		return true
	case errors.Is(c.end, io.EOF):
		_ = to.CloseWrite() // fails only on a closed connection
	default:
		l.reset()
	}
	return false
}

// count counts n bytes, or as many as there are before a planned cut, which
// the caller then makes and says so on the channel.
func (p *Proxy) count(way Direction, n int) (pass int, cut chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := &p.faults; f.cutWay&way != 0 {
		if int64(n) >= f.cutLeft {
			n, cut = int(f.cutLeft), f.cutDone
			f.cutWay = 0
		} else {
			f.cutLeft -= int64(n)
		}
	}
	if way == ToServer {
		p.traffic.ToServer += int64(n)
	} else {
		p.traffic.ToClient += int64(n)
	}
	return n, cut
}

// pass returns true when nothing keeps bytes of a direction back, and false
// when the connection is reset before.
func (l *link) pass(way Direction) bool {
	for {
		l.proxy.mu.Lock()
		held, changed := l.stranded || l.proxy.faults.hole&way != 0, l.proxy.changed
		l.proxy.mu.Unlock()
		if !held {
			return true
		}
		select {
		case <-changed:
		case <-l.done:
			return false
		}
	}
}

// pause waits for d, and returns false when the connection is reset before.
func (l *link) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}
