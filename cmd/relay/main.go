// Command relay publishes the events of a PostgreSQL outbox to Kafka.
package main

import (
	"context"
	"io"
	"os"

	"github.com/seed-048de892/walpost/internal/daemon"
)

func main() { os.Exit(daemon.Main(run)) }

// run is main without the process: tests call it with their own arguments and
// output.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return daemon.Parse(ctx, "relay", "Publishes the events of a PostgreSQL outbox to Kafka, from the write-ahead log.",
		new(commands), args, stdout, stderr)
}
