// Package exampledb gives a runnable example a database with the outbox's
// tables.
package exampledb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// Open makes a schema in the database that WALPOST_TEST_POSTGRES names, with
// the tables of package schema and what ddl makes beside them, and gives a
// pool whose search path it is. The caller calls done, which drops it.
func Open(ctx context.Context, ddl string) (pool *pgxpool.Pool, done func(), err error) {
	dsn := os.Getenv("WALPOST_TEST_POSTGRES")
	if dsn == "" {
		return nil, nil, errors.New("WALPOST_TEST_POSTGRES is not set: run the examples with make test")
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, nil, fmt.Errorf("WALPOST_TEST_POSTGRES: %w", err)
	}
	name := "example_" + strings.ReplaceAll(outbox.NewID().String(), "-", "")
	config.ConnConfig.RuntimeParams["search_path"] = name
	if pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, nil, err
	}
	quoted := pgx.Identifier{name}.Sanitize()
	done = func() {
		_, _ = pool.Exec(context.WithoutCancel(ctx), "drop schema if exists "+quoted+" cascade")
		pool.Close()
	}
	migrations, err := up()
	if err == nil {
		_, err = pool.Exec(ctx, "create schema "+quoted+";\n"+migrations+"\n"+ddl)
	}
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("make the example's tables: %w", err)
	}
	return pool, done, nil
}

// up gives the upward half of every migration.
func up() (string, error) {
	var all strings.Builder
	names, err := fs.Glob(schema.FS, "*.sql")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		b, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return "", err
		}
		half, _, _ := strings.Cut(string(b), "-- +goose Down")
		all.WriteString(half)
	}
	return all.String(), nil
}
