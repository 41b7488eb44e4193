package demo

import (
	"context"
	"fmt"
	"net/http"

	"github.com/seed-048de892/walpost/services/user"
)

// Requests counts what was asked of the user service.
type Requests struct {
	Accepted int64 `json:"accepted"`
	Refused  int64 `json:"refused"` // as was wanted
}

// A round is the script of once mode.
type round struct {
	*client

	done Requests
	err  error // the first that went otherwise than the script says
}

// play lets two people sign up, one change and log in twice, the other leave,
// and has one of each kind of refusal. It leaves eight events: four of ada,
// two of bob, and two of creations that a business rule refused. Requests that
// are wrong in themselves leave none.
func (r *round) play(ctx context.Context) (Requests, error) {
	ada := r.create(ctx, "create ada", http.StatusCreated, newPerson("ada"))
	bob := r.create(ctx, "create bob", http.StatusCreated, newPerson("bob"))

	r.create(ctx, "create ada again", http.StatusConflict, newPerson("ada"))
	child := newPerson("child")
	child.DateOfBirth = "2020-02-29"
	r.create(ctx, "create a child", http.StatusUnprocessableEntity, child)
	nameless := newPerson("x")
	r.create(ctx, "create with a name too short", http.StatusUnprocessableEntity, nameless)

	change := map[string]any{"fullName": "Ada King", "dateOfBirth": nil}
	r.step("update ada", http.StatusOK, func() (int, user.State, error) { return r.update(ctx, ada.ID.String(), ada.Version, change) })
	r.step("update ada's old version", http.StatusPreconditionFailed, func() (int, user.State, error) {
		return r.update(ctx, ada.ID.String(), ada.Version, change)
	})
	for range 2 {
		r.step("log ada in", http.StatusCreated, func() (int, user.State, error) { return r.logIn(ctx, "ada", password) })
	}
	r.step("log ada in with a wrong password", http.StatusUnauthorized, func() (int, user.State, error) { return r.logIn(ctx, "ada", "Wrong123!") })

	r.step("deactivate bob", http.StatusOK, func() (int, user.State, error) { return r.deactivate(ctx, bob.ID.String()) })
	r.step("log bob in", http.StatusForbidden, func() (int, user.State, error) { return r.logIn(ctx, "bob", password) })
	return r.done, r.err
}

func (r *round) create(ctx context.Context, what string, want int, p person) user.State {
	return r.step(what, want, func() (int, user.State, error) { return r.client.create(ctx, p) })
}

// step does nothing once a step has failed.
func (r *round) step(what string, want int, request func() (int, user.State, error)) user.State {
	if r.err != nil {
		return user.State{}
	}
	status, state, err := request()
	switch {
	case err != nil:
		r.err = fmt.Errorf("%s: %w", what, err)
	case status != want:
		r.err = fmt.Errorf("%s: status %d, want %d", what, status, want)
	case status < http.StatusMultipleChoices:
		r.done.Accepted++
	default:
		r.done.Refused++
	}
	return state
}
