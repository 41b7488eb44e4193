package wal_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/wal"
)

// TestConfirmingTheEndLosesAndRepeatsNothing confirms the first of two
// transactions whose commit records stand side by side, at each of the
// positions one might take for its end. PostgreSQL skips a transaction whose
// commit record begins before the confirmed position: the end LSN loses and
// repeats nothing, the commit LSN repeats the first, and a byte more than the
// end loses the second.
func TestConfirmingTheEndLosesAndRepeatsNothing(t *testing.T) {
	dsn := devstacktest.Database(t)
	conn := connect(t, dsn)
	if _, err := conn.Exec(t.Context(), `create table o (n int); create publication p for table o with (publish = 'insert')`); err != nil {
		t.Fatal(err)
	}
	name := devstacktest.Name(t)
	for what, test := range map[string]struct {
		position func(pgoutput.Commit) lsn.Pos
		want     []int // of transactions 0, 1 and 2, those that come then
	}{
		"end":    {func(c pgoutput.Commit) lsn.Pos { return c.EndLSN }, []int{1, 2}},
		"commit": {func(c pgoutput.Commit) lsn.Pos { return c.CommitLSN }, []int{0, 1, 2}},
		"beyond": {func(c pgoutput.Commit) lsn.Pos { return c.EndLSN + 1 }, []int{2}},
	} {
		t.Run(what, func(t *testing.T) {
			slot := name + "_" + what
			commits := adjacent(t, dsn, conn, slot)
			confirm(t, conn, slot, test.position(commits[0]))
			var got []int
			for _, c := range read(t, conn, slot) {
				got = append(got, slices.IndexFunc(commits, func(k pgoutput.Commit) bool { return k.CommitLSN == c.CommitLSN }))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("confirmed at the %s of transaction 0, these come: %v, want %v", what, got, test.want)
			}
		})
	}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// adjacent makes slot and commits three transactions of which the first two
// have their commit records side by side. The server itself writes to the log
// now and then, so it tries until nothing has come between.
func adjacent(t *testing.T, dsn string, conn *pgx.Conn, slot string) []pgoutput.Commit {
	t.Helper()
	one, two := connect(t, dsn), connect(t, dsn)
	exec := func(c *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		exec(conn, `select pg_create_logical_replication_slot($1, 'pgoutput', false, false)`, slot)
		exec(one, `begin`)
		exec(two, `begin`)
		exec(one, `insert into o values (1)`)
		exec(two, `insert into o values (2)`)
		exec(one, `commit`)
		exec(two, `commit`)
		exec(conn, `insert into o values (3)`)
		commits := read(t, conn, slot)
		if len(commits) != 3 {
			t.Fatalf("slot %s delivers %d transactions, want 3", slot, len(commits))
		}
		if commits[0].EndLSN == commits[1].CommitLSN {
			return commits
		}
		exec(conn, `select pg_drop_replication_slot($1)`, slot)
	}
	t.Fatal("fifty pairs of commits, and none side by side")
	return nil
}

// confirm tells the server that what is before position is done, and returns
// when the slot says so and is free.
func confirm(t *testing.T, conn *pgx.Conn, slot string, position lsn.Pos) {
	t.Helper()
	stream := start(t, conn, slot)
	if err := stream.Confirm(position, true); err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	released(t, conn, slot)
	var confirmed string
	if err := conn.QueryRow(t.Context(), `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, slot).Scan(&confirmed); err != nil {
		t.Fatal(err)
	}
	if confirmed != position.String() {
		t.Fatalf("slot %s is confirmed at %s, want %v", slot, confirmed, position)
	}
}

func start(t *testing.T, conn *pgx.Conn, slot string) *wal.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := wal.Start(ctx, &conn.Config().Config, wal.Options{Slot: slot, Publication: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// released waits until no walsender has the slot.
func released(t *testing.T, conn *pgx.Conn, slot string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); ; {
		var active bool
		if err := conn.QueryRow(t.Context(), `select active from pg_replication_slots where slot_name = $1`, slot).Scan(&active); err != nil {
			t.Fatal(err)
		}
		if !active {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("slot %s is still in use after 30 s", slot)
		}
	}
}

// read gives the transactions that come from where the slot is confirmed up to
// where the log ends now, and confirms nothing.
func read(t *testing.T, conn *pgx.Conn, slot string) (commits []pgoutput.Commit) {
	t.Helper()
	var end string
	if err := conn.QueryRow(t.Context(), `select pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
		t.Fatal(err)
	}
	until, err := lsn.Parse(end)
	if err != nil {
		t.Fatal(err)
	}
	stream := start(t, conn, slot)
	defer released(t, conn, slot)
	defer func() {
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	}()
	stop := time.AfterFunc(30*time.Second, stream.Interrupt)
	defer stop.Stop()
	for {
		if err := stream.Confirm(0, true); err != nil { // asks how far the server is
			t.Fatal(err)
		}
		m, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case m.Data == nil && m.End >= until:
			return commits
		case pgoutput.KindOf(m.Data) == pgoutput.KindCommit:
			c, err := pgoutput.ParseCommit(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			commits = append(commits, c)
		}
	}
}
