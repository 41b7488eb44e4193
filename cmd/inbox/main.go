// Command inbox looks after the dead letters of a service's inbox.
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
	Config kong.ConfigFlag `help:"YAML file with flags by their names." placeholder:"FILE" env:"INBOX_CONFIG"`

	Dead    deadCommands          `cmd:"" help:"Events whose handler failed, and those that wait behind them."`
	Version daemon.VersionCommand `cmd:"" help:"Print the version."`
}

type deadCommands struct {
	List    listCommand    `cmd:"" help:"List them, oldest first."`
	Show    showCommand    `cmd:"" help:"Show one with its headers and payload."`
	Edit    editCommand    `cmd:"" help:"Change the payload or headers of one. Redrive it afterwards."`
	Redrive redriveCommand `cmd:"" help:"Have them handled again by the running service, with what waits behind them."`
	Drop    dropCommand    `cmd:"" help:"Give them up: they are never handled."`
}

// run is main without the process: tests call it with their own arguments and
// output.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return daemon.Parse(ctx, "inbox", "Looks after the dead letters of a service's inbox.", new(commands), args, stdout, stderr)
}
