package write

import (
	"context"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestReplay takes the server away under a connection.
func TestReplay(t *testing.T) {
	db := testDatabase(t)
	ctx := t.Context()
	var n, calls int
	o, err := db.offline(ctx, func(ctx context.Context, tx pgx.Tx) error {
		calls++
		return tx.QueryRow(ctx, `select count(*)::int + $1 from accounts`, 1).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.wire.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n = 0
		if err := o.once(); err != nil || n != accounts+1 {
			t.Fatalf("replay: %d, %v, want %d", n, err, accounts+1)
		}
	}
	if want := 2 + 1 + 3; calls != want {
		t.Errorf("%d calls, want %d", calls, want)
	}
}

func TestReplayOfNothing(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	c := newReplayConn(client)
	defer c.Close()
	c.record()
	if err := c.replay(); err == nil {
		t.Error("a recording of nothing was taken for one")
	}
}

// TestFramesInPieces reads the same frames in pieces of every length.
func TestFramesInPieces(t *testing.T) {
	stream := []byte("B\x00\x00\x00\x06SQE\x00\x00\x00\x04S\x00\x00\x00\x04d\x00\x00\x00\x05cc\x00\x00\x00\x04Q\x00\x00\x00\x05\x00")
	const want = 3 // Sync, CopyDone, Query
	for length := 1; length <= len(stream); length++ {
		var f frameReader
		got := 0
		for rest := stream; len(rest) > 0; {
			n := min(length, len(rest))
			got += f.read(rest[:n])
			rest = rest[n:]
		}
		if got != want {
			t.Errorf("in pieces of %d bytes: %d requests, want %d", length, got, want)
		}
	}
}
