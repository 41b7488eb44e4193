package demo

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// ANSI sequences. Lines are cut at the edge instead of wrapped while the block
// is drawn anew, since the way back up is counted in lines.
const (
	wrapOff   = "\x1b[?7l"
	wrapOn    = "\x1b[?7h"
	clearDown = "\x1b[J"
)

// A display shows snapshots.
type display struct {
	out      io.Writer
	terminal bool

	at    addresses
	drawn int // lines of the block on the terminal
}

// begin writes what does not change.
func (d *display) begin(s *stack) error {
	d.at = s.at
	_, err := fmt.Fprintf(d.out, `everything runs, after %.1f s; stop it with Ctrl-C

user service  http://%s/users           operations http://%s/metrics
relay                                               operations http://%s/metrics
archive       http://%s/aggregates/...  operations http://%s/metrics
PostgreSQL    psql '%s'
Kafka         brokers %s
MongoDB       %s (%s)
logs          %s

`, s.partsReady.Sub(s.began).Seconds(),
		d.at.user, d.at.userOps, d.at.relayOps, d.at.archive, d.at.archiveOps,
		s.servers.dsn, strings.Join(s.servers.kafka.Brokers, ","), s.servers.mongo.URI, s.servers.mongo.Kind,
		filepath.Join(s.servers.dir, "log"))
	return err
}

func (d *display) draw(n *snapshot) error {
	if !d.terminal {
		_, err := fmt.Fprintf(d.out,
			"rows=%d published=%d archived=%d behind=%d relay_lag_bytes=%d commit_to_kafka_p50_ms=%.1f commit_to_archive_p50_ms=%.1f accepted=%d refused=%d failed=%d newest=%s\n",
			n.rows, n.published, n.documents, n.rows-n.documents, n.lagBytes, n.latency.ToKafka.P50, n.latency.ToArchive.P50,
			n.accepted, n.refused, n.failed, n.newest)
		return err
	}
	block := d.block(n)
	var back string
	if d.drawn > 0 {
		back = fmt.Sprintf("\x1b[%dA", d.drawn)
	}
	d.drawn = strings.Count(block, "\n")
	_, err := io.WriteString(d.out, wrapOff+back+"\r"+clearDown+block+wrapOn)
	return err
}

func (d *display) block(n *snapshot) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("running             %v, first event archived after %.1f s", n.running.Round(time.Second), n.first.Seconds())
	line("requests            %d accepted, %d refused, %d failed", n.accepted, n.refused, n.failed)
	if n.failure != nil {
		line("last failure        %s", strings.ReplaceAll(n.failure.Error(), "\n", " "))
	}
	line("")
	line("rows committed      %8d", n.rows)
	line("records published   %8d   lag %d bytes of log", n.published, n.lagBytes)
	line("documents archived  %8d   lag %d events", n.documents, n.rows-n.documents)
	line("")
	line("of the last %d       p50 ms    p99 ms    max ms", n.latency.ToArchive.Count)
	line("commit to Kafka     %8.1f  %8.1f  %8.1f", n.latency.ToKafka.P50, n.latency.ToKafka.P99, n.latency.ToKafka.Max)
	line("commit to MongoDB   %8.1f  %8.1f  %8.1f", n.latency.ToArchive.P50, n.latency.ToArchive.P99, n.latency.ToArchive.Max)
	if n.newest != "" {
		line("")
		line("curl http://%s/users/%s", d.at.user, n.newest)
		line("curl http://%s/aggregates/user/%s", d.at.archive, n.newest)
		line("curl http://%s/aggregates/user/%s/events", d.at.archive, n.newest)
	}
	return b.String()
}

// end leaves the last block where it is. Nobody needs to read it: the terminal
// may be gone.
func (d *display) end() { _, _ = io.WriteString(d.out, "stopping\n") }
