package user

import (
	"errors"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
	"github.com/seed-048de892/walpost/outbox/aggregate/aggregatetest"
)

var (
	born    = "1990-12-10"
	noon    = time.Date(2026, 11, 24, 12, 0, 0, 123456000, time.UTC)
	later   = noon.Add(time.Hour)
	fixedID = outbox.ID{0x01, 0x90}
)

func ada() State {
	return State{
		ID: fixedID, Username: "ada", Email: "ada@example.org", FullName: "Ada Lovelace", DateOfBirth: &born,
		Status: Active, Version: 1, CreatedAt: noon, UpdatedAt: noon,
	}
}

func given(t *testing.T, events ...any) *aggregatetest.Scenario[State] {
	t.Helper()
	def, err := define()
	if err != nil {
		t.Fatal(err)
	}
	return aggregatetest.Given(t, def, events...)
}

func command(f func(User) error) func(*aggregate.Root[State]) error {
	return func(root *aggregate.Root[State]) error { return f(User{root}) }
}

func text(s string) patched { return patched{value: &s, set: true} }

func TestCreateCommand(t *testing.T) {
	t.Parallel()
	given(t).When(command(func(u User) error {
		return u.create(fixedID, CreationAsk{Username: "ada", Email: "ada@example.org", FullName: "Ada Lovelace", DateOfBirth: &born}, noon)
	})).Then(ada()).ThenState(ada())
}

func TestUpdateCommand(t *testing.T) {
	t.Parallel()
	email, want := "new@example.org", ada()
	want.Email, want.DateOfBirth, want.Version, want.UpdatedAt = email, nil, 2, later
	given(t, ada()).When(command(func(u User) error {
		return u.update(UpdateBody{Username: text("ada"), Email: text(email), DateOfBirth: patched{set: true}}, policy{}, later)
	})).Then(Updated{Email: &email, DateOfBirth: patched{set: true}, Change: Change{UpdatedAt: later, Version: 2}}).ThenState(want)

	given(t, ada()).When(command(func(u User) error {
		return u.update(UpdateBody{Username: text("ada"), DateOfBirth: text(born)}, policy{}, later)
	})).Then().ThenState(ada())

	// The time of a change does not go back, though this replica's clock is slow.
	want = ada()
	want.Version, want.FullName = 2, "Ada King"
	given(t, ada()).When(command(func(u User) error {
		return u.update(UpdateBody{FullName: text("Ada King")}, policy{}, noon.Add(-time.Hour))
	})).ThenState(want)
}

func TestUpdateCommandRefuses(t *testing.T) {
	t.Parallel()
	young := "2020-01-01"
	for name, tt := range map[string]struct {
		ask  UpdateBody
		rule string
	}{
		"domain":        {UpdateBody{Email: text("ada@example.com")}, "email_domain"},
		"date of birth": {UpdateBody{Username: text("lovelace"), DateOfBirth: text(young)}, "minimum_age"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var refused error
			scenario := given(t, ada()).When(command(func(u User) error {
				refused = u.update(tt.ask, policy{domains: []string{"example.org"}}, later)
				return refused
			}))
			if rule, ok := errors.AsType[*ruleError](refused); !ok || rule.rule != tt.rule {
				t.Errorf("update = %v, want the rule %s", refused, tt.rule)
			}
			scenario.ThenError(refused)
		})
	}
}

func TestLogInAndDeactivateCommands(t *testing.T) {
	t.Parallel()
	login := LoggedIn{LoginCount: 1, LastLogin: LastLogin{At: later, IP: "192.0.2.1", UserAgent: "tester"}, Change: Change{UpdatedAt: later, Version: 2}}
	again := login
	again.LoginCount, again.Version = 2, 3
	logIn := command(func(u User) error { return u.logIn("192.0.2.1", "tester", later) })
	given(t, ada()).When(logIn).Then(login)
	given(t, ada(), login).When(logIn).Then(again)

	ended := LifeEnded{Status: Deactivated, Change: Change{UpdatedAt: later, Version: 2}}
	deactivate := command(func(u User) error { return u.deactivate(later) })
	want := ada()
	want.Status, want.Version, want.UpdatedAt = Deactivated, 2, later
	given(t, ada()).When(deactivate).Then(ended).ThenState(want)
	for _, refused := range []func(*aggregate.Root[State]) error{
		logIn, deactivate, command(func(u User) error { return u.update(UpdateBody{FullName: text("Ada King")}, policy{}, later) }),
	} {
		given(t, ada(), ended).When(refused).ThenError(errNotActive)
	}
}
