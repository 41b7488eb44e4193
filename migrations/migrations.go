// Package migrations holds each service's database schema as goose migrations,
// and applies them.
//
// The goose command does the same by hand:
//
//	goose -dir migrations/user postgres "$DSN" up
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // goose speaks database/sql
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed user/*.sql
var userFS embed.FS

// User gives the migrations of the user service's database.
func User() fs.FS { return folder{userFS, "user"} }

// folder is a directory of an embed.FS. Unlike fs.Sub it cannot fail.
type folder struct {
	embed.FS
	name string
}

func (f folder) Open(name string) (fs.File, error) {
	full, err := f.full("open", name)
	if err != nil {
		return nil, err
	}
	return f.FS.Open(full)
}

func (f folder) ReadDir(name string) ([]fs.DirEntry, error) {
	full, err := f.full("readdir", name)
	if err != nil {
		return nil, err
	}
	return f.FS.ReadDir(full)
}

func (f folder) ReadFile(name string) ([]byte, error) {
	full, err := f.full("read", name)
	if err != nil {
		return nil, err
	}
	return f.FS.ReadFile(full)
}

func (f folder) full(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return path.Join(f.name, name), nil
}

// Up applies all of migrations that the database at dsn lacks and logs each.
// Replicas may call it at the same time: an advisory lock lets one work while
// the others wait.
func Up(ctx context.Context, dsn string, migrations fs.FS, log *slog.Logger) error {
	return run(dsn, migrations, func(p *goose.Provider) error {
		results, err := p.Up(ctx)
		for _, r := range results {
			log.InfoContext(ctx, "migration applied",
				slog.String("file", path.Base(r.Source.Path)), slog.Duration("took", r.Duration))
		}
		if err != nil {
			return fmt.Errorf("apply migrations: %w", err)
		}
		return nil
	})
}

// Down takes back every migration: the tables and all in them are gone.
func Down(ctx context.Context, dsn string, migrations fs.FS) error {
	return run(dsn, migrations, func(p *goose.Provider) error {
		if _, err := p.DownTo(ctx, 0); err != nil {
			return fmt.Errorf("take back migrations: %w", err)
		}
		return nil
	})
}

func run(dsn string, migrations fs.FS, do func(*goose.Provider) error) (err error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("make migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	return do(provider)
}

// A VersionError says that a database is not at the version a program needs.
type VersionError struct {
	Have, Want int64
	Hint       string // what to type
}

func (e *VersionError) Error() string {
	s := fmt.Sprintf("database is at migration %d, this program needs %d", e.Have, e.Want)
	if e.Hint != "" {
		s += "; run: " + e.Hint
	}
	return s
}

// querier is a pgx pool, connection or transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Check gives a [*VersionError] with hint where db lacks one of migrations. A
// newer database is accepted, so that the old replicas go on while a new
// release has migrated already.
func Check(ctx context.Context, db querier, migrations fs.FS, hint string) error {
	want, err := Latest(migrations)
	if err != nil {
		return err
	}
	var have int64
	err = db.QueryRow(ctx, `select coalesce(max(version_id), 0) from goose_db_version where is_applied`).Scan(&have)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == "42P01" { // no such table: nothing applied yet
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read the database's migration version: %w", err)
	}
	if have < want {
		return &VersionError{Have: have, Want: want, Hint: hint}
	}
	return nil
}

// Latest gives the highest version among migrations.
func Latest(migrations fs.FS) (int64, error) {
	files, err := fs.Glob(migrations, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	var latest int64
	for _, file := range files {
		number, _, _ := strings.Cut(file, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %s: name it number_what.sql", file)
		}
		latest = max(latest, version)
	}
	return latest, nil
}
