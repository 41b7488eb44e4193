package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// operations finds in a log where the operations address is.
type operations struct{ address chan string }

func (o operations) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		var entry struct{ Server, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Server == "operations" {
			o.address <- entry.Address
		}
	}
	return len(b), nil
}

// TestRetention runs the command over a table with an old partition, until the
// metrics say that it was dropped, and then that a slot is in the way.
func TestRetention(t *testing.T) {
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
	const old = `; create table outbox_old partition of outbox for values from ('2020-01-01') to ('2020-01-02')`
	if _, err := conn.Exec(t.Context(), up+old); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	log := operations{address: make(chan string, 1)}
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{
			"run", "--postgres", dsn, "--brokers", strings.Join(devstacktest.Kafka(t), ","), "--source", name, "--positions-topic", "_" + name + ".positions",
			"--ops-listen", "127.0.0.1:0", "--log-format", "json", "--retention", "24h", "--retention-every", "1s", "--retention-ahead", "2",
		}, io.Discard, log)
	}()
	var address string
	select {
	case address = <-log.address:
	case err := <-done:
		t.Fatalf("relay run = %v", err)
	}
	metric := func(want string) func() bool {
		return func() bool { return strings.Contains(get(t, "http://"+address+"/metrics"), "\n"+want) }
	}
	devstacktest.Wait(t, "the old partition to be dropped", time.Minute, metric("relay_retention_partitions_dropped_total 1\n"))
	devstacktest.Wait(t, "a pass without an error", time.Minute, metric("relay_retention_last_pass_timestamp_seconds 1."))
	if !metric("relay_retention_oldest_partition_timestamp_seconds 1.")() {
		t.Error("the oldest partition is not in the metrics")
	}
	var tables string
	err = conn.QueryRow(t.Context(), `select count(*) || ' ' || coalesce(to_regclass('outbox_old')::text, 'dropped') from pg_inherits where inhparent = 'outbox'::regclass`).Scan(&tables)
	if err != nil || tables != "4 dropped" {
		t.Errorf("partitions: %q, %v; want today's, 2 more and the default, and the old one dropped", tables, err)
	}

	other := name + "_other"
	if _, err := conn.Exec(t.Context(), `select pg_create_logical_replication_slot('`+other+`', 'pgoutput')`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), strings.TrimPrefix(old, ";")); err != nil {
		t.Fatal(err)
	}
	devstacktest.Wait(t, "the other slot to be named", time.Minute, metric(`relay_retention_blocked_partitions{slot="`+other+`"} 1`))
	stop()
	if err := <-done; err != nil {
		t.Errorf("relay run = %v", err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRetentionFlags(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{
		"run", "--postgres", "postgres://nowhere/db", "--brokers", "nowhere:9092", "--retention", "1s", "--retention-ahead", "0", "--retention-every", "1ms", "--retention-hold", "0s",
	}, io.Discard, io.Discard)
	exit, ok := errors.AsType[*daemon.ExitError](err)
	if !ok || exit.Code != daemon.ExitUsage {
		t.Fatalf("relay run = %v, want wrong use", err)
	}
	for _, flag := range []string{"retention:", "retention-ahead:", "retention-every:", "retention-hold:"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
}
