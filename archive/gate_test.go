package archive_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A gate stands before a server and can be shut: connections end and new ones
// are refused at once. Muted, it lets questions through but no answer: the
// connection ends instead.
type gate struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup
	muted    atomic.Bool

	mu     sync.Mutex
	isShut bool
	conns  map[net.Conn]bool
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{target: target, listener: listener, conns: map[net.Conn]bool{}}
	g.wg.Go(g.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		g.shut()
		g.wg.Wait()
	})
	return g
}

func (g *gate) address() string { return g.listener.Addr().String() }

func (g *gate) accept() {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		if !g.hold(in, out) {
			continue
		}
		g.wg.Go(func() { g.pipe(in, out, nil) })
		g.wg.Go(func() { g.pipe(out, in, &g.muted) })
	}
}

// hold keeps the two for shut, or closes them where the gate is shut.
func (g *gate) hold(in, out net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isShut {
		_, _ = in.Close(), out.Close()
		return false
	}
	g.conns[in], g.conns[out] = true, true
	return true
}

// pipe copies until one end closes, or something comes while muted.
func (g *gate) pipe(from, to net.Conn, muted *atomic.Bool) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || muted != nil && muted.Load() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = true
	for c := range g.conns {
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isShut = false
}
