package outboxtest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/internal/exampledb"
	"github.com/seed-048de892/walpost/outbox/outboxtest"
)

type userCreated struct {
	Email string `json:"email"`
}

func created() outbox.Typed[userCreated] {
	return outbox.Typed[userCreated]{Name: "UserCreated", Topic: "user.created", AggregateType: "user"}
}

// failure is a test that keeps why it failed and goes on.
type failure struct {
	ctx  context.Context
	text string
}

func (*failure) Helper()                    {}
func (f *failure) Context() context.Context { return f.ctx }
func (f *failure) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
}

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	if testing.Short() && os.Getenv("WALPOST_TEST_POSTGRES") == "" {
		t.Skip("-short: needs PostgreSQL")
	}
	pool, done, err := exampledb.Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	return pool
}

// write makes an event for each id and writes them in mode.
func write(t *testing.T, pool *pgxpool.Pool, mode outbox.Mode, ids ...string) {
	t.Helper()
	ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{RequestID: "r" + ids[0]})
	var events []outbox.Event
	for i, id := range ids {
		e, err := created().Event(id, int64(i+1), userCreated{Email: id + "@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := (outbox.Writer{Mode: mode}).Write(ctx, tx, events...); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestFindsWhatWasWritten(t *testing.T) {
	t.Parallel()
	for _, mode := range []outbox.Mode{outbox.Rows, outbox.Packed} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			pool := database(t)
			write(t, pool, mode, "1", "2")
			write(t, pool, mode, "3", "1")

			got := outboxtest.RequireWritten(t, pool, created(), outboxtest.AggregateID("2"))
			if got.Data.Email != "2@example.com" || got.AggregateVersion != 2 || got.Headers["requestId"] != "r1" || got.Topic != "user.created" {
				t.Errorf("got %+v", got)
			}
			outboxtest.RequireWritten(t, pool, created(), outboxtest.AggregateID("1"), outboxtest.AggregateVersion(2), outboxtest.Header("requestId", "r3"), outboxtest.Topic("user.created"))
			outboxtest.RequireNotWritten(t, pool, created(), outboxtest.AggregateID("4"))
			var ids []string
			for _, e := range outboxtest.RequireManyWritten(t, pool, 4, created()) {
				ids = append(ids, e.AggregateID)
			}
			if diff := cmp.Diff([]string{"1", "2", "3", "1"}, ids); diff != "" {
				t.Errorf("order of events, -want +got:\n%s", diff)
			}
		})
	}
}

func TestFailuresListWhatWasThere(t *testing.T) {
	t.Parallel()
	pool := database(t)
	f := &failure{ctx: t.Context()}
	outboxtest.RequireWritten(f, pool, created())
	if want := "0 events UserCreated were written, want 1; the outbox is empty"; !strings.Contains(f.text, want) {
		t.Errorf("failure %q, want %q in it", f.text, want)
	}

	write(t, pool, outbox.Rows, "1", "2")
	tests := map[string]struct {
		check func()
		want  []string
	}{
		"none fits": {
			func() {
				outboxtest.RequireWritten(f, pool, created(), outboxtest.AggregateID("9"), outboxtest.Header("a", "b"))
			},
			[]string{`0 events UserCreated were written with aggregate id "9" and header a "b", want 1`, `UserCreated of user/1 version 1 to user.created: "{\"email\":\"1@example.com\"}" map[requestId:r1]`},
		},
		"two fit": {
			func() { outboxtest.RequireWritten(f, pool, created()) },
			[]string{"2 events UserCreated were written, want 1", "user/1", "user/2"},
		},
		"one too many": {
			func() { outboxtest.RequireNotWritten(f, pool, created(), outboxtest.AggregateID("1")) },
			[]string{"1 events UserCreated", "want 0"},
		},
		"no such table": {
			func() { outboxtest.RequireWritten(f, pool, created(), outboxtest.Table([]string{"app", "outbox"})) },
			[]string{"read the outbox", "app.outbox"},
		},
	}
	for name, tt := range tests {
		f.text = ""
		tt.check()
		for _, want := range tt.want {
			if !strings.Contains(f.text, want) {
				t.Errorf("%s: failure\n%s\nwant in it %s", name, f.text, want)
			}
		}
	}
}
