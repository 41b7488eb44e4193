// Command demo starts everything on this machine and shows events flow.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/demo"
)

func main() { os.Exit(daemon.Main(run)) }

// command is the flags of the program.
type command struct {
	Once    bool          `help:"Play one scripted round, wait until it has arrived, print a summary and end." env:"DEMO_ONCE"`
	JSON    bool          `name:"json" help:"With --once: print the summary as one JSON object." env:"DEMO_JSON"`
	Rate    float64       `help:"Requests a second." default:"5" env:"DEMO_RATE"`
	Timeout time.Duration `help:"How long the programs may take to get ready, and with --once the events to arrive." default:"60s" env:"DEMO_TIMEOUT"`
	Dir     string        `help:"Empty folder to keep data and logs in. Default: a temporary one, removed at the end." placeholder:"DIR" env:"DEMO_DIR"`
}

// run is main without the process: tests call it with their own arguments and
// output.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return daemon.Parse(ctx, "demo", "Starts PostgreSQL, Kafka, MongoDB and all of walpost on this machine, sends traffic and shows what flows.",
		new(command), args, stdout, stderr)
}

// Run runs until ctx ends, or through the round. An incomplete round ends the
// program with the code for a broken promise.
func (c *command) Run(ctx context.Context, out daemon.Output) error {
	// A terminal that closes and a reader that goes, as head does, are as good
	// as Ctrl-C: nothing may be left behind.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if c.JSON && !c.Once {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: errors.New("--json goes with --once")}
	}
	d, err := demo.New(demo.Config{Dir: c.Dir, Rate: c.Rate, Timeout: c.Timeout, Progress: out.Stderr})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	if !c.Once {
		return d.Live(ctx, out.Stdout, isTerminal(out.Stdout))
	}
	summary, err := d.Once(ctx)
	if err != nil {
		err = &daemon.ExitError{Code: daemon.ExitPromise, Err: err}
	}
	if c.JSON {
		encoder := json.NewEncoder(out.Stdout)
		encoder.SetIndent("", "  ")
		return errors.Join(err, encoder.Encode(summary))
	}
	return errors.Join(err, summary.WriteText(out.Stdout))
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
