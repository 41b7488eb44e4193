package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// TestCheckStatusRecover goes through the loss of a slot by the commands alone.
func TestCheckStatusRecover(t *testing.T) {
	dsn, name := devstacktest.Database(t), devstacktest.Name(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := conn.Exec(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	command := func(want int, args ...string) string {
		t.Helper()
		stdout.Reset()
		args = append(args, "--postgres", dsn, "--brokers", strings.Join(devstacktest.Kafka(t), ","), "--source", name, "--slot", name, "--positions-topic", "_"+name+".positions")
		err := run(t.Context(), args, &stdout, &stderr)
		code := daemon.ExitDone
		if err != nil {
			code = daemon.ExitFailed
		}
		if exit, ok := errors.AsType[*daemon.ExitError](err); ok {
			code = exit.Code
		}
		if code != want {
			t.Errorf("relay %v ends with %d (%v), want %d:\n%s", args, code, err, want, stdout.String())
		}
		return stdout.String()
	}
	relayRun := func(until func() bool) {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- run(ctx, []string{
				"run", "--postgres", dsn, "--brokers", strings.Join(devstacktest.Kafka(t), ","), "--source", name, "--slot", name,
				"--positions-topic", "_" + name + ".positions", "--ops-listen", "127.0.0.1:0",
			}, &bytes.Buffer{}, t.Output())
		}()
		devstacktest.Wait(t, "the relay", time.Minute, func() bool { return len(done) > 0 || until() })
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	stored := func() (s struct {
		Sequence  int64
		StoredLSN string `json:"storedLsn"`
	},
	) {
		if err := json.Unmarshal([]byte(command(daemon.ExitDone, "status", "--json", "--over", "100ms")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	write := func() {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			return outbox.Write(t.Context(), tx, outbox.Event{Topic: name, AggregateType: "user", AggregateID: "a", Type: "UserCreated", Payload: []byte("{}")})
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	command(daemon.ExitDone, "check")
	command(daemon.ExitFailed, "check", "--table", "nothing")
	command(daemon.ExitUsage, "check", "--delivery", "twice")
	command(daemon.ExitFailed, "recover")
	relayRun(func() bool { return stored().StoredLSN != "0/0" })
	write()
	relayRun(func() bool { return stored().Sequence == 1 })
	write()
	if _, err := conn.Exec(t.Context(), "select pg_drop_replication_slot($1)", name); err != nil {
		t.Fatal(err)
	}
	var findings struct {
		Findings []struct{ Area, Level, Next string }
	}
	if err := json.Unmarshal([]byte(command(daemon.ExitPromise, "check", "--json")), &findings); err != nil || len(findings.Findings) < 15 {
		t.Errorf("check --json: %v, %+v", err, findings)
	}
	if text := command(daemon.ExitPromise, "status", "--over", "100ms"); !strings.Contains(text, "-> relay recover") {
		t.Errorf("status names no recovery:\n%s", text)
	}
	if text := command(daemon.ExitDone, "recover"); !strings.Contains(text, "would publish          1\n") || !strings.Contains(text, "Nothing was changed.") {
		t.Errorf("recover:\n%s", text)
	}
	var report struct {
		Applied   bool
		Published int
	}
	if err := json.Unmarshal([]byte(command(daemon.ExitDone, "recover", "--apply", "--json")), &report); err != nil || !report.Applied || report.Published != 1 {
		t.Errorf("recover --apply --json: %v, %+v", err, report)
	}
	command(daemon.ExitDone, "check")
	relayRun(func() bool { return stored().Sequence == 2 })
}
