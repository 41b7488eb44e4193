package main

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

func TestRefusedArguments(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"now", `unexpected argument "now"`},
		{"--sizes 1,x", `--sizes "1,x"`},
		{"--turn soon", "turn"},
	} {
		err := run(t.Context(), strings.Fields(tt.args), t.Output(), t.Output())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %s", tt.args, err, tt.want)
		}
	}
	if err := run(t.Context(), []string{"--help"}, t.Output(), t.Output()); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

// TestGivenServer measures on a server that is given, and leaves nothing there.
func TestGivenServer(t *testing.T) {
	dsn := devstacktest.Database(t)
	var out strings.Builder
	args := []string{"--dsn", dsn, "--rounds", "1", "--turn", "1ms", "--sizes", "2", "--clients", "2", "--parts", "batches"}
	if err := run(t.Context(), args, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\n| `outbox.Write` | 1.00 (") {
		t.Errorf("no line of the table in\n%s", &out)
	}
	if strings.Contains(out.String(), dsn) {
		t.Error("the output tells the password of the server")
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var left int
	if err := conn.QueryRow(t.Context(), `select count(*) from pg_database where datname = $1`, databaseName(os.Getpid())).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d databases left, %v", left, err)
	}
}
