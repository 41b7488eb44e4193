package wal_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/wal"
)

// TestConfirmingTheEndLosesAndRepeatsNothing commits transactions one right
// behind the other and resumes behind the first, from each of the positions
// one might take for its end. PostgreSQL skips what commits before the
// position by where a commit record begins: only the end LSN is right.
func TestConfirmingTheEndLosesAndRepeatsNothing(t *testing.T) {
	dsn := devstacktest.Database(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	name := devstacktest.Name(t)
	if _, err := conn.Exec(t.Context(), `create table o (n int); create publication p for table o with (publish = 'insert')`); err != nil {
		t.Fatal(err)
	}
	slots := map[string]func(pgoutput.Commit) lsn.Pos{
		name + "_end":    func(c pgoutput.Commit) lsn.Pos { return c.EndLSN },
		name + "_commit": func(c pgoutput.Commit) lsn.Pos { return c.CommitLSN },
		name + "_beyond": func(c pgoutput.Commit) lsn.Pos { return c.EndLSN + 1 },
	}
	for slot := range slots {
		if _, err := conn.Exec(t.Context(), `select pg_create_logical_replication_slot($1, 'pgoutput', false, false)`, slot); err != nil {
			t.Fatal(err)
		}
	}
	// Row 2 of its own statement follows the commit of row 1 without a
	// transaction of anybody else in between, most often.
	if _, err := conn.Exec(t.Context(), `insert into o values (1); commit; insert into o values (2); commit; insert into o values (3)`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	rest := make(map[string][]pgoutput.Commit)
	var first pgoutput.Commit
	for slot, position := range slots {
		commits := read(t, conn, slot, 0)
		if len(commits) != 3 {
			t.Fatalf("slot %s delivers %d transactions, want 3", slot, len(commits))
		}
		first = commits[0]
		rest[slot] = read(t, conn, slot, position(first))
	}
	if got := rest[name+"_end"]; len(got) != 2 || got[0].CommitLSN <= first.CommitLSN {
		t.Errorf("behind the end LSN come %d transactions, want the other two", len(got))
	}
	if got := rest[name+"_commit"]; len(got) != 3 {
		t.Errorf("behind the commit LSN come %d transactions; the first was expected to come again", len(got))
	}
	// Whether a byte more loses the neighbour depends on where its commit
	// record begins; never may it bring the first again.
	if got := rest[name+"_beyond"]; len(got) > 2 {
		t.Errorf("behind a later position come %d transactions, more than there are", len(got))
	}
}

// read confirms position, unless it is 0, and gives the transactions that come
// then, up to where the log ends now.
func read(t *testing.T, conn *pgx.Conn, slot string, position lsn.Pos) (commits []pgoutput.Commit) {
	t.Helper()
	var end string
	if err := conn.QueryRow(t.Context(), `select pg_current_wal_flush_lsn()::text from pg_switch_wal()`).Scan(&end); err != nil {
		t.Fatal(err)
	}
	until, err := lsn.Parse(end)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := wal.Start(ctx, &conn.Config().Config, wal.Options{Slot: slot, Publication: "p", Start: position})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	}()
	stop := context.AfterFunc(ctx, stream.Interrupt)
	defer stop()
	if err := stream.Confirm(position, true); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Data == nil {
			if m.End >= until {
				return commits
			}
			if err := stream.Confirm(position, true); err != nil { // ask again how far it is
				t.Fatal(err)
			}
			continue
		}
		if pgoutput.KindOf(m.Data) == pgoutput.KindCommit {
			c, err := pgoutput.ParseCommit(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			commits = append(commits, c)
		}
	}
}
