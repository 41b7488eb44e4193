package aggregate_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
)

func TestRecordAppliesAndKeepsTheEvent(t *testing.T) {
	t.Parallel()
	root := accounts(t).New("42")
	if err := errors.Join(
		aggregate.Record(root, opened{Owner: "Ada"}),
		aggregate.Record(root, any(deposited{Cents: 500, Pocket: "main"})), // found by the type within
	); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(account{Owner: "Ada", Cents: 500, Pockets: map[string]int64{"main": 500}}, root.State()); diff != "" {
		t.Errorf("state, -want +got:\n%s", diff)
	}
	if root.Version() != 2 || root.Expected() != 0 || root.ID() != "42" {
		t.Errorf("%s is at version %d, expects %d, want 42 at 2, expecting 0", root.ID(), root.Version(), root.Expected())
	}
	want := []outbox.Event{
		{
			Topic: "account.opened", AggregateType: "account", AggregateID: "42", AggregateVersion: 1,
			Type: "AccountOpened", Payload: []byte(`{"Owner":"Ada"}`),
		},
		{
			Topic: "account.money", AggregateType: "account", AggregateID: "42", AggregateVersion: 2,
			Type: "MoneyDeposited", Payload: []byte(`{"Cents":500,"Pocket":"main"}`), Headers: map[string]string{"schemaVersion": "2"},
		},
	}
	if diff := cmp.Diff(want, root.Pending()); diff != "" {
		t.Errorf("pending, -want +got:\n%s", diff)
	}
}

// What is refused has not happened: neither state nor version nor events tell
// of it.
func TestARefusedEventChangesNothing(t *testing.T) {
	t.Parallel()
	def := accounts(t)
	tests := map[string]struct {
		event any
		want  error // nil: only the text counts
		text  string
	}{
		"refused by Check":   {event: deposited{Cents: -1}, want: errRefused, text: "record event 3 of account 42: check payload of MoneyDeposited"},
		"no event of its":    {event: account{}, text: "aggregate_test.account is no event of it: use one of aggregate_test.opened, aggregate_test.deposited"},
		"a pointer to one":   {event: &deposited{}, text: "*aggregate_test.deposited is no event of it"},
		"nothing":            {event: nil, text: "<nil> is no event of it"},
		"another's, by type": {event: "text", text: "string is no event of it"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := def.New("42")
			record(t, root, opened{Owner: "Ada"}, deposited{Cents: 5, Pocket: "main"})
			before, pending := root.State(), len(root.Pending())
			err := root.RecordAny(tt.event)
			if err == nil || !strings.Contains(err.Error(), tt.text) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("RecordAny = %v, want %q", err, tt.text)
			}
			if diff := cmp.Diff(before, root.State()); diff != "" || root.Version() != 2 || len(root.Pending()) != pending {
				t.Errorf("version %d, %d pending, state, -before +after:\n%s", root.Version(), len(root.Pending()), diff)
			}
		})
	}
	if err := aggregate.Record(def.New("42"), account{}); err == nil || !strings.Contains(err.Error(), "record event 1 of account 42: aggregate_test.account is no event of it") {
		t.Errorf("Record of another type = %v", err)
	}
}

func TestDefinitionRefuses(t *testing.T) {
	t.Parallel()
	double := config()
	double.Type, double.SnapshotVersion = "a/b", 1
	double.SnapshotUpcasters = map[int]func([]byte) ([]byte, error){1: eurosToCents}
	double.Events = append(double.Events,
		aggregate.EventType[account]{},
		aggregate.On(outbox.Typed[opened]{Name: "AccountOpened", Topic: "t", AggregateType: "user"}, (func(*account, opened))(nil)),
		aggregate.On(outbox.Typed[int]{Topic: "t"}, func(*account, int) {}),
	)
	tests := map[string]struct {
		cfg  aggregate.Config[account]
		want []string
	}{
		"empty": {want: []string{`define aggregate ""`, "Config.Type", "Config.Events is empty"}},
		"much": {cfg: double, want: []string{
			`define aggregate "a/b"`, "Config.Type", "Config.Snapshot…", "Upcasters[1]", "Config.Events[4] is empty",
			`Config.Events[5]: AccountOpened is an event of "user"`, "Config.Events[5]: the name \"AccountOpened\" is another's",
			"*aggregate_test.opened is AccountOpened already", "has no function that applies it", "Config.Events[6]: Typed[int]", "Typed[int].Name",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := aggregate.New(tt.cfg)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error does not tell %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestDefinitionGoesIntoARegistry(t *testing.T) {
	t.Parallel()
	var types outbox.Registry
	def := accounts(t)
	if err := def.Register(&types); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"account.closed", "account.money", "account.opened"}, types.Topics()); diff != "" {
		t.Errorf("topics, -want +got:\n%s", diff)
	}
	v, err := types.Decode("MoneyDeposited", 1, []byte(`{"Euros":5}`))
	if want := any(deposited{Cents: 500, Pocket: "main"}); err != nil || v != want {
		t.Errorf("Decode = %v, %v, want %v", v, err, want)
	}
	if typed, ok := outbox.TypedOf[opened](&types); !ok || typed.AggregateType != "account" {
		t.Errorf("registered for aggregate %q", typed.AggregateType)
	}
	if err := def.Register(&types); err == nil {
		t.Error("registered twice without an error")
	}
}

func TestRecordingAllocatesNoMoreThanTheEvent(t *testing.T) {
	def, typed := accounts(t), outbox.Typed[withdrawn]{Name: "MoneyWithdrawn", Topic: "account.money", AggregateType: "account"}
	root := def.Load("42", 1, account{})
	e := withdrawn{Cents: 1}
	alone := testing.AllocsPerRun(1000, func() { _, _ = typed.Event("42", 2, e) })
	// The list of events grows now and then: that is no allocation an event.
	got := testing.AllocsPerRun(1000, func() { _ = aggregate.Record(root, e) })
	if got > alone {
		t.Errorf("Record allocates %v times an event, Typed.Event alone %v", got, alone)
	}
}

func BenchmarkRecord(b *testing.B) {
	def := accounts(b)
	b.ReportAllocs()
	for b.Loop() {
		root := def.Load("42", 1, account{})
		if err := aggregate.Record(root, withdrawn{Cents: 1}); err != nil {
			b.Fatal(err)
		}
	}
}
