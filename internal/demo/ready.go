package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// pollEvery is how often something is looked at that gives no signal.
const pollEvery = 20 * time.Millisecond

// poll calls check until it gives nil, and gives its last error when ctx ends
// before.
func poll(ctx context.Context, check func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// The end of ctx says less than what was before. MongoDB's driver
		// announces it early, for what would end too late.
		if last == nil || ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return last
		}
	}
}

// awaitReady returns when every program does its work. The relay must before
// the first event is written: it refuses an outbox with rows older than its
// slot. It gives nil, too, when ctx ends.
func (s *stack) awaitReady(ctx context.Context, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, program := range []struct {
		name  string
		check func(context.Context) error
	}{
		{"user service", func(ctx context.Context) error { return dial(ctx, s.at.user) }}, // it listens when it is prepared
		{"relay", s.relay.Ready},
		{"archive", s.archive.Ready},
		{"archive's reading API", func(ctx context.Context) error { return dial(ctx, s.at.archive) }},
	} {
		err := poll(limited, program.check)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the %s is not ready after %v: %w", program.name, timeout, err)
		}
	}
	return nil
}

func dial(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// freeAddresses gives addresses nobody listens at. They are random, so that
// demos which start at the same time do not meet, and below the range that the
// kernel takes clients' ports from.
func freeAddresses(ctx context.Context) (addresses, error) {
	var found [5]string
	n := 0
	var lc net.ListenConfig
	for range 200 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000)))
		listener, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			continue // taken
		}
		defer func() { _ = listener.Close() }() // held until all are found, so that they differ
		found[n] = address
		if n++; n == len(found) {
			return addresses{user: found[0], userOps: found[1], relayOps: found[2], archive: found[3], archiveOps: found[4]}, nil
		}
	}
	return addresses{}, errors.New("no free ports on 127.0.0.1 between 20000 and 32000")
}
