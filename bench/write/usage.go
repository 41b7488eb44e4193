package write

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// usage is CPU time spent until now.
type usage struct {
	process time.Duration // by this process, in user and system mode
	server  time.Duration // by the server's processes of a pool's connections
}

// usage reads it while no client is at work.
func (db *database) usage(ctx context.Context, pool *pgxpool.Pool) (usage, error) {
	u := usage{}
	if db.ServerCPU {
		idle := pool.AcquireAllIdle(ctx)
		for _, conn := range idle {
			spent, err := processTime(conn.Conn().PgConn().PID())
			conn.Release()
			if err != nil {
				return usage{}, err
			}
			u.server += spent
		}
	}
	var err error
	u.process, err = ownTime()
	return u, err
}

func ownTime() (time.Duration, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

// processTime reads the nanoseconds that Linux counts for a process of one
// thread: proc(5) has the ticks of 10 ms only.
func processTime(pid uint32) (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/schedstat", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the server's CPU time: %w", err)
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	ns, err := strconv.ParseInt(string(first), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the server's CPU time: %s: %w", path, err)
	}
	return time.Duration(ns), nil
}
