// Command user is the user service.
package main

import (
	"context"
	"io"
	"os"

	"github.com/seed-048de892/walpost/internal/daemon"
)

func main() {
	os.Exit(daemon.Main(run))
}

// cli is all commands of the program and their flags.
type cli struct {
	Serve   serve                 `cmd:"" default:"withargs" help:"Serve the API (default)."`
	Migrate migrate               `cmd:"" help:"Bring the database to the version this program needs."`
	Version daemon.VersionCommand `cmd:"" help:"Print the version."`
}

// run is main without the process: tests call it with their own arguments and
// output.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return daemon.Parse(ctx, "user", "The user service of walpost.", new(cli), args, stdout, stderr)
}
