// Command archive keeps every record of Kafka in MongoDB and reads it back.
package main

import (
	"context"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"github.com/seed-048de892/walpost/internal/daemon"
)

func main() { os.Exit(daemon.Main(run)) }

type commands struct {
	Config kong.ConfigFlag `help:"YAML file with flags by their names." placeholder:"FILE" env:"ARCHIVE_CONFIG"`

	Run     runCommand            `cmd:"" help:"Archive until stopped, and serve what is archived."`
	Events  eventsCommand         `cmd:"" help:"List an aggregate's events."`
	State   stateCommand          `cmd:"" help:"Show the state that an aggregate's events come to."`
	Version daemon.VersionCommand `cmd:"" help:"Print the version."`
}

// run is main without the process: tests call it with their own arguments and
// output.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return daemon.Parse(ctx, "archive", "Keeps every record of Kafka in MongoDB, once and unchanged, and reads it back.",
		new(commands), args, stdout, stderr)
}
