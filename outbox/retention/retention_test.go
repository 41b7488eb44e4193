package retention

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"
)

func TestNewTellsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Table: pgx.Identifier{"a", "b", "c"}, Keep: time.Second, Period: 9, Ahead: -1, Slots: []string{""},
		Every: time.Millisecond, LockTimeout: -time.Second, HoldTimeout: time.Microsecond,
	})
	if err == nil {
		t.Fatal("New took it")
	}
	for _, field := range []string{"DB:", "Table:", "Keep:", "Period:", "Ahead:", "Slots:", "Every:", "LockTimeout:", "HoldTimeout:"} {
		if !strings.Contains(err.Error(), "\n"+field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestNotes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := position{system: rapid.StringMatching(`[1-9][0-9]{18}`).Draw(t, "system"), lsn: rapid.Uint64().Draw(t, "lsn")}
		got, err := parseNote(want.String())
		if err != nil || got != want {
			t.Fatalf("%q was read as %v, %v", want, got, err)
		}
	})
	for _, note := range []string{
		"", "every slot must pass 0/1", "every slot must pass 0/1 of system  before it is dropped", "every slot must pass 0/1x of system 1 before it is dropped",
		"every slot must pass 01 of system 1 before it is dropped", "every slot must pass 0/1 of system 1 before it is dropped!",
	} {
		if p, err := parseNote(note); err == nil {
			t.Errorf("%q was read as %v", note, p)
		}
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	good, bad := slot{name: "good"}, slot{name: "bad", lost: "is lost"}
	tests := map[string]struct {
		found   []slot
		named   []string
		refused string // the slot, "-" for none
	}{
		"any":              {found: []slot{good}},
		"named":            {found: []slot{good}, named: []string{"good"}},
		"none":             {refused: "-"},
		"named is missing": {found: []slot{good}, named: []string{"good", "other"}, refused: "other"},
		"one is lost":      {found: []slot{good, bad}, refused: "bad"},
	}
	for name, tt := range tests {
		err := check(tt.found, tt.named)
		e, ok := errors.AsType[*SlotError](err)
		if ok != (tt.refused != "") || ok && (e.Slot != strings.Trim(tt.refused, "-") || e.Hint == "") {
			t.Errorf("%s: %v, want %q refused", name, err, tt.refused)
		}
	}
}

// down is a database that can't be reached.
type down struct{ began []time.Time }

var errDown = errors.New("connection refused")

func (d *down) Begin(context.Context) (pgx.Tx, error) {
	d.began = append(d.began, time.Now())
	return nil, errDown
}

// passes counts what a hook sees.
type passes struct{ errs []error }

func (p *passes) OnPass(_ context.Context, _ Pass, err error) { p.errs = append(p.errs, err) }

// TestRunGoesOnAfterErrors lets passes fail for an hour: they come again, less
// and less often, and Run ends with its context only.
func TestRunGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, seen := new(down), new(passes)
		r, err := New(Config{DB: db, Hooks: []Hook{seen}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Minute)
		defer cancel()
		if err := r.Run(ctx); err != nil || time.Since(start) != 59*time.Minute {
			t.Errorf("Run = %v after %v, want nil after 59 minutes", err, time.Since(start))
		}
		var minutes []float64
		for _, at := range db.began {
			minutes = append(minutes, at.Sub(start).Minutes())
		}
		if diff := cmp.Diff([]float64{0, 1, 3, 7, 15, 30, 45}, minutes); diff != "" {
			t.Errorf("passes began at these minutes:\n%s", diff)
		}
		if slices.ContainsFunc(seen.errs, func(err error) bool { return !errors.Is(err, errDown) }) || len(seen.errs) != len(minutes) {
			t.Errorf("the hook saw %v, want every pass's error", seen.errs)
		}
	})
}
