// Command write measures what it costs to write events, beside plain pgx and
// two other libraries, and prints Markdown tables:
//
//	go run ./cmd/write
//
// It starts a PostgreSQL of its own that syncs its write-ahead log to the
// disk, unless --dsn names a server; there it makes a database and drops it at
// the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/seed-048de892/walpost/internal/devstack"

	"github.com/seed-048de892/walpost/bench/write"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "write:", err)
		os.Exit(1)
	}
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	cfg := write.Config{Progress: stderr, ServerCPU: true}
	flags := flag.NewFlagSet("write", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.DSN, "dsn", "", "URL of a superuser of the server to measure; default: a server of its own")
	flags.IntVar(&cfg.Clients, "clients", 0, "connections that write single events at once (default 16)")
	flags.IntVar(&cfg.BatchClients, "batch-clients", 0, "connections that write many events at once (default 4)")
	flags.IntVar(&cfg.Rounds, "rounds", 0, "rounds in which the contenders take turns (default 11, with --long 41)")
	flags.DurationVar(&cfg.Turn, "turn", 0, "time of one contender in a round (default 100ms, with --long 250ms)")
	flags.IntVar(&cfg.PayloadBytes, "payload-bytes", 0, "length of each payload (default 400)")
	version := flags.String("postgres", "", `major version of the own server, "14" to "18"; default: the newest that is installed`)
	sizes := flags.String("sizes", "", "events in a transaction, by comma (default 1,10,100,1000,10000)")
	parts := flags.String("parts", "", "what to measure, by comma: client, transactions, batches (default all)")
	long := flags.Bool("long", false, "twenty minutes instead of four, for figures to be published")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: there are flags only, see --help", flags.Arg(0))
	}
	if *long {
		if cfg.Rounds == 0 {
			cfg.Rounds = 41
		}
		if cfg.Turn == 0 {
			cfg.Turn = 250 * time.Millisecond
		}
	}
	if *parts != "" {
		cfg.Parts = strings.Split(*parts, ",")
	}
	if *sizes != "" {
		for s := range strings.SplitSeq(*sizes, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				return fmt.Errorf("--sizes %q: give whole numbers by comma, as in 1,100", *sizes)
			}
			cfg.Sizes = append(cfg.Sizes, n)
		}
	}
	if cfg.DSN != "" {
		cfg.ServerCPU = false // it may run anywhere
	} else {
		server, stop, err := start(ctx, *version, stderr)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		cfg.DSN, cfg.WarmWAL = server, keptWAL<<20
	}
	admin := cfg.DSN
	name := databaseName(os.Getpid())
	if cfg.DSN, err = devstack.CreateDatabase(ctx, admin, name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop(context.WithoutCancel(ctx), admin, name)) }()
	fmt.Fprintf(stdout, "Command: `%s`\n\n", command(flags))
	return write.Run(ctx, cfg, stdout)
}

func databaseName(pid int) string { return "walpost_bench_" + strconv.Itoa(pid) }

// command is how the run can be repeated; where the server was is nobody's
// business.
func command(flags *flag.FlagSet) string {
	words := []string{"go run ./cmd/write"}
	flags.Visit(func(f *flag.Flag) {
		value := f.Value.String()
		if f.Name == "dsn" {
			value = "…"
		}
		words = append(words, "--"+f.Name+"="+value)
	})
	return strings.Join(words, " ")
}

// keptWAL is how many megabytes of log the own server keeps for reuse.
const keptWAL = 512

// start starts a PostgreSQL that is as durable as a real one. It makes no
// checkpoints by itself: they fall between the rounds, not into somebody's
// turn.
func start(ctx context.Context, version string, progress io.Writer) (dsn string, stop func() error, err error) {
	dir, remove, err := devstack.TempDir()
	if err != nil {
		return "", nil, err
	}
	p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: filepath.Join(dir, "postgres"), Version: version, Progress: progress,
		Settings: map[string]string{"min_wal_size": strconv.Itoa(keptWAL) + "MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"},
	})
	if err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return p.DSN, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return errors.Join(p.Stop(ctx), remove())
	}, nil
}

func drop(ctx context.Context, admin, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "drop database "+pgx.Identifier{name}.Sanitize()+" with (force)"); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}
