package devstack_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// echo is a server that sends back what it gets, through a proxy.
func echo(t *testing.T) *devstack.Proxy {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	p, err := devstack.StartProxy(t.Context(), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return p
}

func dial(t *testing.T, p *devstack.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// expect reads text, and says how long that took.
func expect(t *testing.T, conn net.Conn, text string) time.Duration {
	t.Helper()
	begun := time.Now()
	_ = conn.SetReadDeadline(begun.Add(10 * time.Second))
	got := make([]byte, len(text))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v, want %q", got[:n], err, text)
	}
	return time.Since(begun)
}

// silent expects that nothing comes for a while, neither bytes nor an end.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v, want silence", n, err)
	}
}

// expectRefused finds a new connection reset, at once or a little later.
func expectRefused(t *testing.T, p *devstack.Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("dial: %v, want a reset", err)
		}
		return
	}
	defer func() { _ = conn.Close() }()
	expectReset(t, conn)
}

func expectReset(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v, want a reset", err)
	}
}

func TestProxyPassesAndCounts(t *testing.T) {
	p := echo(t)
	conn := dial(t, p)
	large := strings.Repeat("0123456789", 100_000)
	go func() { _, _ = io.WriteString(conn, large) }()
	expect(t, conn, large)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
		t.Errorf("behind all: %d bytes, %v, want the end", n, err)
	}
	want := devstack.Traffic{Connections: 1, ToServer: int64(len(large)), ToClient: int64(len(large))}
	if got := p.Traffic(); got != want {
		t.Errorf("Traffic() = %+v, want %+v", got, want)
	}
}

func TestProxyCuts(t *testing.T) {
	p := echo(t)
	one, two := dial(t, p), dial(t, p)
	send(t, one, "one")
	expect(t, one, "one")
	send(t, two, "two")
	expect(t, two, "two")
	p.Cut()
	expectReset(t, one)
	expectReset(t, two)
	three := dial(t, p)
	send(t, three, "three")
	expect(t, three, "three")

	done := p.CutAfter(devstack.ToServer, 4)
	send(t, three, "abc")
	expect(t, three, "abc")
	select {
	case <-done:
		t.Fatal("cut after 3 bytes, want 4")
	default:
	}
	before := p.Traffic().ToServer
	send(t, three, "de")
	<-done
	expectReset(t, three)
	if n := p.Traffic().ToServer - before; n != 1 {
		t.Errorf("%d bytes passed before the cut, want 1", n)
	}
}

func TestProxyBlackholes(t *testing.T) {
	for name, way := range map[string]devstack.Direction{
		"to the server": devstack.ToServer, "to the client": devstack.ToClient, "both ways": devstack.BothWays,
	} {
		t.Run(name, func(t *testing.T) {
			p := echo(t)
			conn := dial(t, p)
			send(t, conn, "before")
			expect(t, conn, "before")
			p.Blackhole(way)
			send(t, conn, "in it")
			silent(t, conn)
			fresh := dial(t, p) // the kernel says yes, and nobody else
			send(t, fresh, "fresh")
			silent(t, fresh)
			p.Heal()
			expect(t, conn, "in it")
			expect(t, fresh, "fresh")
		})
	}
}

func TestProxyStrands(t *testing.T) {
	p := echo(t)
	conn := dial(t, p)
	send(t, conn, "before")
	expect(t, conn, "before")
	p.Strand()
	send(t, conn, "lost")
	p.Heal()
	silent(t, conn)
	fresh := dial(t, p)
	send(t, fresh, "fresh")
	expect(t, fresh, "fresh")
	p.Cut()
	expectReset(t, conn)
}

func TestProxySlowsDown(t *testing.T) {
	p := echo(t)
	conn := dial(t, p)
	p.Delay(50 * time.Millisecond)
	send(t, conn, "late")
	if took := expect(t, conn, "late"); took < 100*time.Millisecond {
		t.Errorf("there and back took %v, want 50 ms each way", took)
	}
	p.Heal()
	p.Throttle(10_000)
	text := string(bytes.Repeat([]byte("x"), 1000))
	send(t, conn, text)
	if took := expect(t, conn, text); took < 200*time.Millisecond {
		t.Errorf("1000 bytes at 10000 a second took %v there and back, want 0.1 s each way", took)
	}
}

func TestProxyRefuses(t *testing.T) {
	p := echo(t)
	old := dial(t, p)
	send(t, old, "a")
	expect(t, old, "a")
	p.Refuse()
	expectRefused(t, p)
	send(t, old, "b")
	expect(t, old, "b")
	p.Redirect("")
	p.Heal()
	expectRefused(t, p) // leads nowhere
}

func TestProxyClosesInEveryState(t *testing.T) {
	for name, f := range map[string]func(*devstack.Proxy){
		"healthy":   func(*devstack.Proxy) {},
		"blackhole": func(p *devstack.Proxy) { p.Blackhole(devstack.BothWays) },
		"stranded":  func(p *devstack.Proxy) { p.Strand() },
		"delayed":   func(p *devstack.Proxy) { p.Delay(time.Hour) },
		"throttled": func(p *devstack.Proxy) { p.Throttle(1) },
	} {
		t.Run(name, func(t *testing.T) {
			p := echo(t)
			conn := dial(t, p)
			send(t, conn, "before")
			expect(t, conn, "before")
			f(p)
			send(t, conn, strings.Repeat("x", 100_000))
			send(t, dial(t, p), "fresh")
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			expectReset(t, conn)
		})
	}
}

// TestKafkaThroughAProxy has a client that comes through the proxy stay on it,
// though Kafka tells its clients where to go, and one that does not.
func TestKafkaThroughAProxy(t *testing.T) {
	skipShort(t)
	p, err := devstack.StartProxy(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	k, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{Dir: devstacktest.Dir(t), Proxy: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Kill() })
	createTopic(t, k.Brokers, "orders")
	if traffic := p.Traffic(); traffic.Connections != 0 {
		t.Errorf("a client of the broker's own address came through the proxy: %+v", traffic)
	}
	var value string
	for len(value) < 100_000 {
		value += rand.Text() // which no codec makes small
	}
	produce(t, []string{p.Addr}, "orders", value)
	if traffic := p.Traffic(); traffic.ToServer < int64(len(value)/2) {
		t.Errorf("a client of the proxy's address went round it: %+v", traffic)
	}
	p.Refuse()
	consume(t, k.Brokers, "orders", value)
}
