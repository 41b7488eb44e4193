package aggregate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// server answers every statement alike. What PostgreSQL makes of them is
// tested on a real one, in internal/conformance/aggregate.
type server struct {
	tag  string
	err  error
	sent int
	args []any
}

func (s *server) Exec(_ context.Context, _ string, args ...any) (pgconn.CommandTag, error) {
	s.sent++
	s.args = args
	return pgconn.NewCommandTag(s.tag), s.err
}

const update = `update accounts set cents = $3, version = $4 where id = $1 and version = $2`

func TestSaveLeavesNothingPendingOrEverything(t *testing.T) {
	t.Parallel()
	def := accounts(t)
	errLost := errors.New("connection lost")
	tests := map[string]struct {
		server server
		want   error
		text   string
	}{
		"changed":     {server: server{tag: "INSERT 0 2"}},
		"not changed": {server: server{tag: "INSERT 0 0"}, want: aggregate.ErrVersionConflict, text: "version conflict: account 42 is not at version 3 any more"},
		"failed":      {server: server{err: errLost}, want: errLost, text: "save account 42 at version 5"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := def.Load("42", 3, account{Cents: 100, Pockets: map[string]int64{}})
			record(t, root, withdrawn{Cents: 1}, withdrawn{Cents: 2})
			err := root.Save(t.Context(), &tt.server, update, root.ID(), root.Expected(), root.State().Cents, root.Version())
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("Save = %v, want %v, %q", err, tt.want, tt.text)
			}
			pending, expected := 0, aggregate.Expected(5)
			if tt.want != nil {
				pending, expected = 2, 3
			}
			if len(root.Pending()) != pending || root.Expected() != expected || root.Version() != 5 || root.State().Cents != 97 {
				t.Errorf("%d pending, expecting %d at version %d with %d cents, want %d, %d, 5, 97",
					len(root.Pending()), root.Expected(), root.Version(), root.State().Cents, pending, expected)
			}
			var conflict *aggregate.ConflictError
			if errors.As(err, &conflict) != errors.Is(tt.want, aggregate.ErrVersionConflict) {
				t.Errorf("Save = %v", err)
			}
			if want := (aggregate.ConflictError{AggregateType: "account", AggregateID: "42", Expected: 3}); conflict != nil && *conflict != want {
				t.Errorf("conflict %+v, want %+v", *conflict, want)
			}
		})
	}
}

// A statement that can't compare the version would overwrite what others have
// written, and nobody would know.
func TestSaveRefusesAStatementThatIsNotGivenTheVersion(t *testing.T) {
	t.Parallel()
	def := accounts(t)
	var server server
	for name, args := range map[string][]any{
		"no version":    {"42", 3, 1, 4},
		"another's":     {"42", def.Load("1", 2, account{}).Expected(), 1, 4},
		"no argument":   nil,
		"plain integer": {"42", int64(3)},
	} {
		t.Run(name, func(t *testing.T) {
			root := def.Load("42", 3, account{})
			record(t, root, withdrawn{Cents: 1})
			var batch pgx.Batch
			for what, err := range map[string]error{
				"Save": root.Save(t.Context(), &server, update, args...), "Queue": root.Queue(t.Context(), &batch, update, args...),
			} {
				if err == nil || !strings.Contains(err.Error(), "pass root.Expected()") {
					t.Errorf("%s = %v, want it refused", what, err)
				}
			}
			if server.sent != 0 || batch.Len() != 0 || len(root.Pending()) != 1 {
				t.Errorf("%d statements sent, %d queued, %d pending, want 0, 0, 1", server.sent, batch.Len(), len(root.Pending()))
			}
		})
	}
}

func TestSaveWithoutEventsDoesNothing(t *testing.T) {
	t.Parallel()
	root := accounts(t).Load("42", 3, account{})
	var server server
	var batch pgx.Batch
	if err := errors.Join(root.Save(t.Context(), &server, update), root.Queue(t.Context(), &batch, update)); err != nil {
		t.Error(err)
	}
	if server.sent != 0 || batch.Len() != 0 {
		t.Errorf("%d statements sent, %d queued, want none", server.sent, batch.Len())
	}
}

// What the outbox refuses is never sent, and stays for the caller to mend.
func TestSaveRefusesWhatTheOutboxDoes(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.Writer.TopicMaxBytes = map[string]int{"account.opened": 100}
	def, err := aggregate.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	root := def.New("42")
	record(t, root, opened{Owner: strings.Repeat("x", 100)})
	var server server
	var batch pgx.Batch
	for what, err := range map[string]error{
		"Save": root.Save(t.Context(), &server, update), "Queue": root.Queue(t.Context(), &batch, update),
	} {
		var refused *outbox.EventError
		if !errors.As(err, &refused) || refused.Field != "Payload" || !strings.Contains(err.Error(), "save account 42 at version 1") {
			t.Errorf("%s = %v, want an EventError", what, err)
		}
	}
	if server.sent != 0 || batch.Len() != 0 || len(root.Pending()) != 1 {
		t.Errorf("%d statements sent, %d queued, %d pending, want 0, 0, 1", server.sent, batch.Len(), len(root.Pending()))
	}
}
