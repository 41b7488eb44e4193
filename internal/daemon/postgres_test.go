package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/internal/daemon"
)

func TestDSN(t *testing.T) {
	t.Parallel()
	const dsn = "postgres://relay:s3cret@db.example/userdb"
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "dsn")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("")
	tests := map[string]struct {
		flags daemon.PostgresFlags
		want  string // of the error; empty: dsn comes out
	}{
		"flag":          {flags: daemon.PostgresFlags{Postgres: dsn}},
		"file":          {flags: daemon.PostgresFlags{PostgresFile: write(dsn)}},
		"file by lines": {flags: daemon.PostgresFlags{PostgresFile: write(dsn + "\r\n")}},
		"neither":       {want: "--postgres: must be set"},
		"both":          {flags: daemon.PostgresFlags{Postgres: dsn, PostgresFile: write(dsn)}, want: "--postgres-file: set together"},
		"no such file":  {flags: daemon.PostgresFlags{PostgresFile: "/none"}, want: "--postgres-file: open /none"},
		"empty file":    {flags: daemon.PostgresFlags{PostgresFile: empty}, want: "--postgres-file: " + empty + " is empty"},
		"two lines":     {flags: daemon.PostgresFlags{PostgresFile: write(dsn + "\n" + dsn)}, want: "holds more than one line"},
		"no such CA":    {flags: daemon.PostgresFlags{Postgres: dsn + "?sslmode=verify-full&sslrootcert=/none"}, want: "--postgres: open /none"},
		"bad percent":   {flags: daemon.PostgresFlags{Postgres: "postgres://relay:s3cret%zz@db.example/userdb"}, want: "--postgres: no connection string"},
		"slash":         {flags: daemon.PostgresFlags{Postgres: "postgres://relay:pa:s3cret/w?rd@db.example/userdb"}, want: "--postgres: no connection string"},
		"open quote":    {flags: daemon.PostgresFlags{Postgres: "host=db.example password = 's3cret"}, want: "--postgres: no connection string"},
		"space":         {flags: daemon.PostgresFlags{Postgres: "host=db.example password=my s3cret"}, want: "--postgres: no connection string"},
		"bad port":      {flags: daemon.PostgresFlags{PostgresFile: write("host=db.example port=s3cret")}, want: "--postgres-file: no connection string"},
		"unknown mode":  {flags: daemon.PostgresFlags{Postgres: dsn + "?sslmode=on"}, want: "sslmode=verify-full"},
	}
	for name, tt := range tests {
		got, err := tt.flags.DSN()
		switch {
		case tt.want == "":
			if err != nil || got != dsn {
				t.Errorf("%s: %q, %v, want %q", name, got, err, dsn)
			}
		case err == nil || !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		case strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%s: error %q holds the password", name, err)
		}
	}
}

func TestExplainLeavesOtherErrorsAlone(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("boom"), &pgconn.PgError{Code: "28P01"}} { // the last: not of a connection
		if got := (daemon.PostgresFlags{}).Explain(err); fmt.Sprint(got) != fmt.Sprint(err) {
			t.Errorf("Explain(%v) = %v", err, got)
		}
	}
}
