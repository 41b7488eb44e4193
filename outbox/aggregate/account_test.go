package aggregate_test

import (
	"encoding/json"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

// account is the state of the tests' aggregate; its map shows what sharing
// memory between states would do.
type account struct {
	Owner   string           `json:"owner"`
	Cents   int64            `json:"cents"`
	Pockets map[string]int64 `json:"pockets"`
	Closed  bool             `json:"closed"`
}

type (
	opened    struct{ Owner string }
	deposited struct {
		Cents  int64
		Pocket string
	}
	withdrawn struct{ Cents int64 }
	closed    struct{}
)

func (a *account) open(e opened) { a.Owner, a.Pockets = e.Owner, map[string]int64{} }

func (a *account) deposit(e deposited) {
	a.Cents += e.Cents
	a.Pockets[e.Pocket] += e.Cents
}

func (a *account) withdraw(e withdrawn) { a.Cents -= e.Cents }

func (a *account) close(closed) { a.Closed = true }

var errRefused = errors.New("refused by Check")

func config() aggregate.Config[account] {
	return aggregate.Config[account]{
		Type: "account",
		Events: []aggregate.EventType[account]{
			aggregate.On(outbox.Typed[opened]{Name: "AccountOpened", Topic: "account.opened"}, (*account).open),
			aggregate.On(outbox.Typed[deposited]{Name: "MoneyDeposited", Topic: "account.money", Version: 2, Upcasters: map[int]func([]byte) ([]byte, error){
				1: eurosToCents,
			}, Check: func(payload []byte) error {
				var e deposited
				if err := json.Unmarshal(payload, &e); err != nil || e.Cents < 0 {
					return errRefused
				}
				return nil
			}}, (*account).deposit),
			aggregate.On(outbox.Typed[withdrawn]{Name: "MoneyWithdrawn", Topic: "account.money"}, (*account).withdraw),
			aggregate.On(outbox.Typed[closed]{Name: "AccountClosed", Topic: "account.closed"}, (*account).close),
		},
	}
}

func eurosToCents(payload []byte) ([]byte, error) {
	var old struct{ Euros int64 }
	if err := json.Unmarshal(payload, &old); err != nil {
		return nil, err
	}
	return json.Marshal(deposited{Cents: 100 * old.Euros, Pocket: "main"})
}

func accounts(t interface {
	Fatal(args ...any)
	Helper()
},
) *aggregate.Definition[account] {
	t.Helper()
	def, err := aggregate.New(config())
	if err != nil {
		t.Fatal(err)
	}
	return def
}

// drawEvents draws a life: an opening and anything behind it.
func drawEvents(t *rapid.T) []any {
	events := []any{opened{Owner: rapid.String().Draw(t, "owner")}}
	more := rapid.SliceOfN(rapid.OneOf(
		rapid.Custom(func(t *rapid.T) any {
			return deposited{Cents: rapid.Int64Range(0, 1e12).Draw(t, "cents"), Pocket: rapid.SampledFrom([]string{"a", "b", "ü"}).Draw(t, "pocket")}
		}),
		rapid.Custom(func(t *rapid.T) any { return withdrawn{Cents: rapid.Int64Range(0, 1e12).Draw(t, "cents")} }),
		rapid.Just(any(closed{})),
	), 0, 30).Draw(t, "events")
	return append(events, more...)
}

func record(t interface {
	Fatal(args ...any)
	Helper()
}, root *aggregate.Root[account], events ...any,
) {
	t.Helper()
	for _, e := range events {
		if err := root.RecordAny(e); err != nil {
			t.Fatal(err)
		}
	}
}

// kept gives what Save would have kept of root: its events as the past, and
// the root as its row would be loaded.
func kept(t *testing.T, events ...any) (*aggregate.Root[account], []aggregate.Past) {
	t.Helper()
	def := accounts(t)
	root := def.New("42")
	record(t, root, events...)
	return def.Load("42", root.Version(), root.State()), past(root)
}

func past(root *aggregate.Root[account]) []aggregate.Past {
	var all []aggregate.Past
	for i := range root.Pending() {
		all = append(all, aggregate.PastOf(&root.Pending()[i]))
	}
	return all
}
