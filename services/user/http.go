package user

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/services/web"
)

type userOutput struct {
	Status   int
	ETag     string `header:"ETag" doc:"The user's version, for If-Match."`
	Location string `header:"Location"`
	Replayed string `header:"Idempotency-Replayed" doc:"true where the answer was given before under the same Idempotency-Key."`
	Body     web.Success[State]
}

func (s *Service) register() {
	web.Register(s.api, huma.Operation{
		OperationID: "create-user", Method: http.MethodPost, Path: "/users", Summary: "Sign up", Tags: []string{"users"},
		DefaultStatus: http.StatusCreated, Errors: []int{400, 409, 413, 503},
	}, s.postUser)
	web.Register(s.api, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: "/users/{id}", Summary: "Read a user", Tags: []string{"users"},
		Errors: []int{404, 503},
	}, s.getUser)
	web.Register(s.api, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: "/users", Summary: "List users", Tags: []string{"users"},
		Errors: []int{422, 503},
	}, s.listUsers)
	web.Register(s.api, huma.Operation{
		OperationID: "update-user", Method: http.MethodPatch, Path: "/users/{id}", Summary: "Change a user's profile", Tags: []string{"users"},
		Errors: []int{400, 404, 409, 412, 413, 428, 503},
	}, s.patchUser)
	web.Register(s.api, huma.Operation{
		OperationID: "deactivate-user", Method: http.MethodPost, Path: "/users/{id}/deactivate", Summary: "Deactivate a user", Tags: []string{"users"},
		Description: "Ends the user's sessions too. A deactivated user stays so. If-Match may be left out.",
		Errors:      []int{400, 404, 409, 412, 503},
	}, s.postDeactivate)
	web.Register(s.api, huma.Operation{
		OperationID: "log-in", Method: http.MethodPost, Path: "/sessions", Summary: "Log in", Tags: []string{"sessions"},
		DefaultStatus: http.StatusCreated, Errors: []int{400, 401, 403, 413, 429, 503},
	}, s.postSession)
	web.Register(s.api, huma.Operation{
		OperationID: "log-out", Method: http.MethodDelete, Path: "/sessions/current", Summary: "Log out", Tags: []string{"sessions"},
		DefaultStatus: http.StatusNoContent, Errors: []int{401, 503},
	}, s.deleteSession)
	web.Register(s.api, huma.Operation{
		OperationID: "get-keys", Method: http.MethodGet, Path: "/.well-known/jwks.json", Summary: "The keys that verify sessions", Tags: []string{"sessions"},
		Errors: []int{503},
	}, s.getKeys)
}

type createInput struct {
	Key  string `header:"Idempotency-Key" doc:"The same key and body gives the first answer again; another body is refused."`
	Body CreateBody
}

func (s *Service) postUser(ctx context.Context, in *createInput) (*userOutput, error) {
	ask := CreationAsk{Username: in.Body.Username, Email: in.Body.Email, FullName: in.Body.FullName, DateOfBirth: in.Body.DateOfBirth}
	key, err := web.NewKey("create-user", in.Key, ask, s.cfg.IdempotencyTTL)
	if err != nil {
		return nil, err
	}
	result, err := s.create(ctx, ask, in.Body.Password, key)
	if err != nil {
		return nil, err
	}
	if r := result.Refusal; r != nil {
		refused := problem(&ruleError{rule: r.Rule, field: r.Field, message: r.Message})
		if result.replayed {
			refused.Header = http.Header{"Idempotency-Replayed": {"true"}}
		}
		return nil, refused
	}
	out := answerUser(ctx, http.StatusCreated, result)
	out.Location = "/users/" + result.User.ID.String()
	return out, nil
}

func answerUser(ctx context.Context, status int, result answer) *userOutput {
	out := &userOutput{Status: status, ETag: web.ETag(result.User.Version), Body: web.Answer(ctx, *result.User)}
	if result.replayed {
		out.Replayed = "true"
	}
	return out
}

type getInput struct {
	ID string `path:"id" format:"uuid"`
}

// parseID reads a path's id, which huma has found to be a UUID; in a form that
// we do not write it is nobody's.
func parseID(s string) (outbox.ID, error) {
	id, err := outbox.ParseID(s)
	if err != nil {
		return id, errNotFound
	}
	return id, nil
}

func (s *Service) getUser(ctx context.Context, in *getInput) (*userOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	state, err := LoadState(ctx, s.cfg.DB, id)
	if err != nil {
		return nil, err
	}
	return answerUser(ctx, http.StatusOK, answer{User: &state}), nil
}

type listInput struct {
	Username string `query:"username" doc:"Only the user of this name, in any case."`
	Email    string `query:"email" doc:"Only the user of this address, in any case."`
	Limit    int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	After    string `query:"after" format:"uuid" doc:"The page behind this user: meta.next of the page before."`
}

type listOutput struct {
	Body web.Success[[]State]
}

func (s *Service) listUsers(ctx context.Context, in *listInput) (*listOutput, error) {
	var after outbox.ID
	if in.After != "" {
		id, err := parseID(in.After)
		if err != nil {
			return nil, &web.Problem{
				Status: http.StatusUnprocessableEntity, Message: "Validation failed",
				Details: []web.Detail{{Field: "after", Message: "give what meta.next gave"}},
			}
		}
		after = id
	}
	states, err := list(ctx, s.cfg.DB, filter{username: in.Username, email: in.Email}, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	more := len(states) > in.Limit
	states = states[:min(len(states), in.Limit)]
	if states == nil {
		states = []State{}
	}
	out := &listOutput{Body: web.Answer(ctx, states)}
	if more {
		out.Body.Meta.Next = states[len(states)-1].ID.String()
	}
	return out, nil
}

type updateInput struct {
	ID      string `path:"id" format:"uuid"`
	IfMatch string `header:"If-Match" doc:"Required: the ETag of the state that the change was made for."`
	Body    UpdateBody
}

func (s *Service) patchUser(ctx context.Context, in *updateInput) (*userOutput, error) {
	precondition, err := web.ParseIfMatch(in.IfMatch, true)
	if err != nil {
		return nil, err
	}
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	state, err := s.update(ctx, id, in.Body, precondition)
	if err != nil {
		return nil, err
	}
	return answerUser(ctx, http.StatusOK, answer{User: &state}), nil
}

type deactivateInput struct {
	ID      string `path:"id" format:"uuid"`
	IfMatch string `header:"If-Match" doc:"Optional: deactivate only this version."`
	Key     string `header:"Idempotency-Key"`
}

func (s *Service) postDeactivate(ctx context.Context, in *deactivateInput) (*userOutput, error) {
	precondition, err := web.ParseIfMatch(in.IfMatch, false)
	if err != nil {
		return nil, err
	}
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	key, err := web.NewKey("deactivate-user", in.Key, id, s.cfg.IdempotencyTTL)
	if err != nil {
		return nil, err
	}
	result, err := s.deactivate(ctx, id, precondition, key)
	if err != nil {
		return nil, err
	}
	return answerUser(ctx, http.StatusOK, result), nil
}

// problem gives the answer to an error of the domain, nil for any other.
func problem(err error) *web.Problem {
	if rule, ok := errors.AsType[*ruleError](err); ok {
		p := &web.Problem{Status: http.StatusUnprocessableEntity, Message: "Rule broken", Details: []web.Detail{{Field: rule.field, Message: rule.message}}}
		if rule.rule == "unique" {
			p.Status, p.Message = http.StatusConflict, "Conflict"
		}
		return p
	}
	if locked, ok := errors.AsType[*lockedError](err); ok {
		wait := max(1, int(math.Ceil(time.Until(locked.until).Seconds())))
		return &web.Problem{
			Status: http.StatusTooManyRequests, Message: "Too many failed log-ins",
			Details: []web.Detail{{Field: "login", Message: fmt.Sprintf("locked out; try again in %d seconds", wait)}},
			Header:  http.Header{"Retry-After": {strconv.Itoa(wait)}},
		}
	}
	switch {
	case errors.Is(err, errNotFound):
		return &web.Problem{Status: http.StatusNotFound, Message: "No such user"}
	case errors.Is(err, errLoginRefused):
		return &web.Problem{Status: http.StatusForbidden, Message: "User is deactivated"}
	case errors.Is(err, errNotActive):
		return &web.Problem{Status: http.StatusConflict, Message: "User is deactivated"}
	case errors.Is(err, errCredentials):
		return &web.Problem{Status: http.StatusUnauthorized, Message: "Wrong user name or password"}
	case errors.Is(err, errNoSession):
		return &web.Problem{Status: http.StatusUnauthorized, Message: "No valid session", Header: http.Header{"WWW-Authenticate": {"Bearer"}}}
	}
	return nil
}
