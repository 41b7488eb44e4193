package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// each runs f for every mode and way to save, each on a database of its own.
func each(t *testing.T, f func(t *testing.T, w *world, mode outbox.Mode, def *aggregate.Definition[account], save way)) {
	t.Helper()
	for _, mode := range modes {
		for name, save := range ways {
			t.Run(mode.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				f(t, newWorld(t), mode, define(t, outbox.Writer{Mode: mode}), save)
			})
		}
	}
}

// Of those who save the same version at once, one wins; the others get a
// version conflict and have no event. What is left is always one history: the
// row is what its events give.
func TestOneOfManyConcurrentSavesWins(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, mode outbox.Mode, def *aggregate.Definition[account], save way) {
		id := 0
		rapid.Check(t, func(t *rapid.T) {
			id++
			name := fmt.Sprint(id)
			for round := range rapid.IntRange(1, 4).Draw(t, "rounds") {
				race(t, w, def, save, name, round, rapid.IntRange(2, 6).Draw(t, "racers"), rapid.IntRange(1, 3).Draw(t, "events"))
			}
			row := w.load(t, def, name)
			history := w.take(t, mode)
			byReplay := replay(t, def, name, history)
			if diff := cmp.Diff(row.State(), byReplay.State()); diff != "" || row.Version() != byReplay.Version() || int(row.Version()) != len(history) {
				t.Fatalf("the row is at version %d, its %d events make version %d; -row +events:\n%s", row.Version(), len(history), byReplay.Version(), diff)
			}
		})
	})
}

// race has racers load the same version, record events and save.
func race(t *rapid.T, w *world, def *aggregate.Definition[account], save way, id string, round, racers, events int) {
	roots, errs := make([]*aggregate.Root[account], racers), make([]error, racers)
	for i := range racers {
		roots[i] = def.New(id)
		if round > 0 {
			roots[i] = w.load(t, def, id)
		}
		owner := fmt.Sprintf("owner %s, round %d, racer %d", id, round, i)
		if err := roots[i].RecordAny(opened{Owner: owner}); err != nil {
			t.Fatal(err)
		}
		for n := range events {
			if err := roots[i].RecordAny(deposited{Cents: int64(n + i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = save(context.Background(), w.db, roots[i])
		})
	}
	close(start)
	wg.Wait()
	winners := 0
	for i, err := range errs {
		pending := events + 1
		switch {
		case err == nil:
			winners++
			pending = 0
			if diff := cmp.Diff(roots[i].State(), w.load(t, def, id).State()); diff != "" {
				t.Errorf("the row is not the winner's, -winner +row:\n%s", diff)
			}
		case !errors.Is(err, aggregate.ErrVersionConflict):
			t.Errorf("racer %d: %v, want a version conflict", i, err)
		}
		if got := len(roots[i].Pending()); got != pending {
			t.Errorf("racer %d with the error %v has %d events pending, want %d", i, err, got, pending)
		}
	}
	if winners != 1 {
		t.Fatalf("%d of %d racers won, want 1", winners, racers)
	}
}

// Errors of PostgreSQL come through to be told apart, and leave neither row nor
// event.
func TestAViolatedConstraintComesThrough(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world, mode outbox.Mode, def *aggregate.Definition[account], save way) {
		ada, bob := def.New("1"), def.New("2")
		for _, root := range []*aggregate.Root[account]{ada, bob} {
			if err := root.RecordAny(opened{Owner: "Ada"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := save(t.Context(), w.db, ada); err != nil {
			t.Fatal(err)
		}
		err := save(t.Context(), w.db, bob)
		violated, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || violated.Code != "23505" || violated.ConstraintName != "accounts_owner_key" {
			t.Errorf("save = %v, want the unique violation of accounts_owner_key", err)
		}
		if errors.Is(err, aggregate.ErrVersionConflict) {
			t.Errorf("%v is no version conflict", err)
		}
		if len(bob.Pending()) != 1 || w.load(t, def, "2") != nil {
			t.Errorf("after the error %d events are pending, row %v", len(bob.Pending()), w.load(t, def, "2"))
		}
		if err := bob.RecordAny(opened{Owner: "Bob"}); err != nil {
			t.Fatal(err)
		}
		if err := save(t.Context(), w.db, bob); err != nil {
			t.Errorf("saving the mended root = %v", err)
		}
		if got := len(w.take(t, mode)); got != 3 {
			t.Errorf("%d events, want Ada's and the two of Bob", got)
		}
	})
}

// What is written travels in every protocol mode of pgx, in one round trip on
// a bare pool.
func TestSaveInEveryProtocolMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, protocol := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		for _, mode := range modes {
			var queries counter
			db := w.pool(t, protocol, &queries)
			def, id := define(t, outbox.Writer{Mode: mode}), fmt.Sprint(protocol, mode)
			ctx := outbox.WithMetadata(t.Context(), outbox.Metadata{RequestID: "r-1"})
			for i := range 3 {
				root := w.load(t, def, id)
				if root == nil {
					root = def.New(id)
				}
				if err := errors.Join(aggregate.Record(root, opened{Owner: fmt.Sprint(id, i)}), aggregate.Record(root, deposited{Cents: 5})); err != nil {
					t.Fatal(err)
				}
				queries.Store(0)
				if err := ways["pool"](ctx, db, root); err != nil {
					t.Fatalf("%v, %v: %v", protocol, mode, err)
				}
				if n := queries.Load(); n != 1 {
					t.Errorf("%v, %v: %d statements, want 1", protocol, mode, n)
				}
			}
			events := w.take(t, mode)
			byReplay := replay(t, def, id, events)
			if diff := cmp.Diff(w.load(t, def, id).State(), byReplay.State()); diff != "" || len(events) != 6 {
				t.Errorf("%v, %v: %d events, want 6; -row +events:\n%s", protocol, mode, len(events), diff)
			}
			for _, e := range events {
				found := false
				for _, h := range e.Headers {
					found = found || h.Name == outbox.HeaderRequestID && h.Value == "r-1"
				}
				if !found || e.AggregateType != "account" || e.AggregateID != id {
					t.Errorf("%v, %v: event %+v lacks the request's id or its aggregate", protocol, mode, e)
				}
			}
		}
	}
}

// counter counts queries.
type counter struct{ atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.Add(1)
	return ctx
}

func (*counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A transaction goes on after a conflict, and what it rolls back has neither
// row nor event.
func TestSaveInTheCallersTransaction(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w, def := newWorld(t), define(t, outbox.Writer{Mode: mode})
			ctx := t.Context()
			one, two, gone := def.New("1"), def.New("2"), def.New("1")
			for i, root := range []*aggregate.Root[account]{one, two, gone} {
				if err := root.RecordAny(opened{Owner: fmt.Sprint(i)}); err != nil {
					t.Fatal(err)
				}
			}
			save := func(tx pgx.Tx, root *aggregate.Root[account]) error {
				sql, args := statement(root)
				return root.Save(ctx, tx, sql, args...)
			}
			errRolledBack := errors.New("rolled back")
			err := pgx.BeginFunc(ctx, w.db, func(tx pgx.Tx) error { return errors.Join(save(tx, one), errRolledBack) })
			if !errors.Is(err, errRolledBack) || w.load(t, def, "1") != nil || len(w.take(t, mode)) != 0 {
				t.Errorf("%v: the rolled-back account has a row or an event", err)
			}
			one = def.New("1")
			if err := one.RecordAny(opened{Owner: "Ada"}); err != nil {
				t.Fatal(err)
			}
			err = pgx.BeginFunc(ctx, w.db, func(tx pgx.Tx) error {
				first, conflict, second := save(tx, one), save(tx, gone), save(tx, two)
				if !errors.Is(conflict, aggregate.ErrVersionConflict) {
					t.Errorf("saving account 1 twice = %v, want a version conflict", conflict)
				}
				return errors.Join(first, second)
			})
			events := w.take(t, mode)
			if err != nil || len(events) != 2 || events[0].AggregateID != "1" || events[1].AggregateID != "2" || w.load(t, def, "2") == nil {
				t.Errorf("%v: events %+v, want one of each account saved", err, events)
			}
		})
	}
}

// The limit that Queue's documentation tells: outside an explicit transaction
// a conflict does not undo the rest of the batch.
func TestAConflictInABareBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	def := define(t, outbox.Writer{})
	root := def.Load("1", 7, account{})
	if err := root.RecordAny(closed{}); err != nil {
		t.Fatal(err)
	}
	var batch pgx.Batch
	batch.Queue(`insert into accounts values ('2', 1, 'Bob', 0, false)`)
	sql, args := statement(root)
	if err := root.Queue(t.Context(), &batch, sql, args...); err != nil {
		t.Fatal(err)
	}
	err := w.db.SendBatch(t.Context(), &batch).Close()
	conflict, ok := errors.AsType[*aggregate.ConflictError](err)
	if !ok || *conflict != (aggregate.ConflictError{AggregateType: "account", AggregateID: "1", Expected: 7}) {
		t.Errorf("the batch = %v, want the conflict of account 1 at version 7", err)
	}
	if w.load(t, def, "2") == nil || len(root.Pending()) != 1 || len(w.take(t, outbox.Rows)) != 0 {
		t.Errorf("row %v, %d pending; want the other row, the event pending and none written", w.load(t, def, "2"), len(root.Pending()))
	}
}

// Events recorded between Queue and the batch's results are saved next time.
func TestRecordBehindQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	def := define(t, outbox.Writer{})
	root := def.New("1")
	if err := root.RecordAny(opened{Owner: "Ada"}); err != nil {
		t.Fatal(err)
	}
	var batch pgx.Batch
	sql, args := statement(root)
	if err := root.Queue(t.Context(), &batch, sql, args...); err != nil {
		t.Fatal(err)
	}
	if err := root.RecordAny(deposited{Cents: 5}); err != nil {
		t.Fatal(err)
	}
	if err := w.db.SendBatch(t.Context(), &batch).Close(); err != nil {
		t.Fatal(err)
	}
	if root.Expected() != 1 || root.Version() != 2 || len(root.Pending()) != 1 {
		t.Fatalf("at version %d, expecting %d, want 2, 1", root.Version(), root.Expected())
	}
	if err := ways["pool"](t.Context(), w.db, root); err != nil {
		t.Fatal(err)
	}
	events := w.take(t, outbox.Rows)
	if diff := cmp.Diff(w.load(t, def, "1").State(), replay(t, def, "1", events).State()); diff != "" || len(events) != 2 {
		t.Errorf("%d events; -row +events:\n%s", len(events), diff)
	}
}
