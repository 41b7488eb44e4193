package write

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// accounts is the number of rows that the business statements change: many
// against the clients, so that these seldom wait for each other.
const accounts = 10_000

// database is the one that is measured, with all tables made.
type database struct {
	Config
	on, off *pgxpool.Pool // by synchronous_commit
	ways    []way
}

func open(ctx context.Context, cfg Config) (*database, error) {
	db := &database{Config: cfg}
	var err, err2 error
	db.on, err = pool(ctx, cfg, "on")
	db.off, err2 = pool(ctx, cfg, "off")
	if err := errors.Join(err, err2); err != nil {
		db.close()
		return nil, err
	}
	if err := db.make(ctx); err != nil {
		db.close()
		return nil, fmt.Errorf("make the tables: %w", err)
	}
	if db.ways, err = ways(ctx, db.off); err != nil {
		db.close()
		return nil, err
	}
	return db, nil
}

func (db *database) close() {
	for _, p := range []*pgxpool.Pool{db.on, db.off} {
		if p != nil {
			p.Close()
		}
	}
}

func pool(ctx context.Context, cfg Config, synchronousCommit string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	c.ConnConfig.RuntimeParams["synchronous_commit"] = synchronousCommit
	c.MaxConns = int32(max(cfg.Clients, cfg.BatchClients))
	return pgxpool.NewWithConfig(ctx, c)
}

// make makes the tables of the business, of the outbox and of River. Those of
// Watermill are its publisher's to make.
func (db *database) make(ctx context.Context) error {
	sql := stdlib.OpenDBFromPool(db.off)
	provider, err := goose.NewProvider(goose.DialectPostgres, sql, schema.FS)
	if err == nil {
		_, err = provider.Up(ctx)
	}
	if err := errors.Join(err, sql.Close()); err != nil {
		return err
	}
	silent := slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(riverpgxv5.New(db.off), &rivermigrate.Config{Logger: silent})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	_, err = db.off.Exec(ctx, `create table accounts (id bigint primary key, balance bigint not null, changes bigint not null) with (fillfactor = 50)`)
	if err == nil {
		_, err = db.off.Exec(ctx, `insert into accounts select n, 0, 0 from generate_series(1, $1) n`, accounts)
	}
	return err
}

// describe writes what the figures depend on.
func (db *database) describe(ctx context.Context, out io.Writer) error {
	const settings = `select split_part(version(), ' on ', 1) || ', ' || string_agg(name || '=' || setting, ', ' order by name)
		from pg_settings where name in ('fsync', 'full_page_writes', 'wal_level', 'shared_buffers')`
	var server string
	if err := db.off.QueryRow(ctx, settings).Scan(&server); err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	versions := []string{runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "github.com/jackc/pgx/v5", "github.com/riverqueue/river", "github.com/ThreeDotsLabs/watermill-sql/v4":
				versions = append(versions, m.Path[strings.IndexByte(m.Path, '/')+1:]+" "+m.Version)
			}
		}
	}
	fmt.Fprintf(out, "%s. %s. %d cores for server and clients, payloads of %d bytes; medians of %d rounds in which the contenders took turns of %v.\n\n",
		server, strings.Join(versions, ", "), runtime.NumCPU(), db.PayloadBytes, db.Rounds, db.Turn)
	return nil
}

// empty empties the table of w.
func (db *database) empty(ctx context.Context, w *way) error {
	if w.table == "" {
		return nil
	}
	if _, err := db.off.Exec(ctx, "truncate "+w.table); err != nil {
		return fmt.Errorf("empty %s: %w", w.table, err)
	}
	return nil
}

// warmWAL makes the files of the write-ahead log that the run will reuse.
func (db *database) warmWAL(ctx context.Context) error {
	const message = 1 << 20
	for written := int64(0); written < db.WarmWAL; written += message {
		if _, err := db.off.Exec(ctx, `select pg_logical_emit_message(false, 'bench', repeat('x', $1))`, message); err != nil {
			return fmt.Errorf("fill the write-ahead log: %w", err)
		}
	}
	return nil
}

// checkpoint gives the log's files back for reuse, and then changes every page
// of the accounts: the first change behind a checkpoint logs the whole page.
func (db *database) checkpoint(ctx context.Context) error {
	if db.WarmWAL == 0 {
		return nil
	}
	for _, sql := range []string{`vacuum accounts`, `checkpoint`, `update accounts set balance = balance where id % 10 = 0`} {
		if _, err := db.off.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// walPosition is how far the write-ahead log has been written, in bytes.
func (db *database) walPosition(ctx context.Context) (int64, error) {
	var position int64
	err := db.off.QueryRow(ctx, `select (pg_current_wal_insert_lsn() - '0/0')::bigint`).Scan(&position)
	if err != nil {
		return 0, fmt.Errorf("read the position of the write-ahead log: %w", err)
	}
	return position, nil
}

func inTx(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, pool, f)
}
