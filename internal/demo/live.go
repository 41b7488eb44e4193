package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

const (
	refreshEvery = time.Second
	recent       = 200 // events that the latencies shown are of
)

// Live sends traffic and shows on out what flows until ctx ends, which is the
// normal way to stop it and gives nil, as does a pipe's reader that goes. On a
// terminal the display is one block that is drawn anew; elsewhere it is a line
// a second.
func (d *Demo) Live(ctx context.Context, out io.Writer, terminal bool) error {
	return d.run(ctx, nil, func(ctx context.Context, s *stack) error {
		client := newClient(s.at)
		defer client.close()
		traffic := &traffic{client: client}
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { traffic.run(ctx, d.cfg.Rate) })
		return show(ctx, s, traffic, &display{out: out, terminal: terminal})
	})
}

func show(ctx context.Context, s *stack, t *traffic, d *display) error {
	if err := d.begin(s); err != nil {
		return err
	}
	defer d.end()
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	var now snapshot
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := now.take(ctx, s, t); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := d.draw(&now); err != nil {
			if errors.Is(err, syscall.EPIPE) {
				return nil
			}
			return err
		}
	}
}

// A snapshot is what there is to see at one moment.
type snapshot struct {
	running                   time.Duration
	accepted, refused, failed int64
	failure                   error

	rows, published, documents int64
	lagBytes                   int64
	latency                    Latency       // of the most recent events
	first                      time.Duration // to the first archived event; kept once known
	newest                     string
}

// take looks at every stage, the last one first: so no stage seems to be ahead
// of the one before.
func (n *snapshot) take(ctx context.Context, s *stack, t *traffic) error {
	n.running = time.Since(s.began)
	written, _, err := measured(s.archiveMetrics, "archive_documents_written_total")
	if err != nil {
		return err
	}
	published, _, err := measured(s.relayMetrics, "relay_records_published_total")
	if err != nil {
		return err
	}
	lag, _, err := measured(s.relayMetrics, "relay_lag_bytes")
	if err != nil {
		return err
	}
	if n.rows, err = s.committedRows(ctx); err != nil {
		return err
	}
	n.documents, n.published, n.lagBytes = int64(written), int64(published), int64(lag)
	passages, err := s.passages(ctx, recent)
	if err != nil {
		return fmt.Errorf("follow events: %w", err)
	}
	n.latency = latency(passages)
	if n.first == 0 {
		n.first = firstArchived(passages, s.began)
	}
	n.accepted, n.refused, n.failed = t.accepted.Load(), t.refused.Load(), t.failed.Load()
	n.newest, n.failure = t.status()
	return nil
}
