package user

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/services/web"
)

// LoginBody is what POST /sessions takes.
type LoginBody struct {
	Login    string `json:"login" doc:"User name or e-mail address." maxLength:"254" example:"ada"`
	Password string `json:"password" format:"password" example:"Secret12!"`
}

// Resolve refuses what no column can be compared with; huma calls it.
func (b *LoginBody) Resolve(huma.Context) []error {
	var found problems
	if b.Login == "" {
		found.add("login", "must not be empty")
	}
	if b.Password == "" {
		found.add("password", "must not be empty")
	}
	return found
}

// SessionState is what POST /sessions gives.
type SessionState struct {
	ID        outbox.ID `json:"id"`
	Token     string    `json:"token" doc:"A JWT for the Authorization header: Bearer <token>."`
	TokenType string    `json:"tokenType" example:"Bearer"`
	IssuedAt  time.Time `json:"issuedAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	User      State     `json:"user"`
}

type loginInput struct {
	Key  string `header:"Idempotency-Key"`
	Body LoginBody
}

type sessionOutput struct {
	Replayed     string `header:"Idempotency-Replayed"`
	CacheControl string `header:"Cache-Control"`
	Body         web.Success[SessionState]
}

// The password is not part of what must be the same: it is verified before a
// kept answer is given.
func (s *Service) postSession(ctx context.Context, in *loginInput) (*sessionOutput, error) {
	key, err := web.NewKey("log-in", in.Key, in.Body.Login, s.cfg.IdempotencyTTL)
	if err != nil {
		return nil, err
	}
	result, err := s.logIn(ctx, in.Body.Login, in.Body.Password, key)
	if err != nil {
		return nil, err
	}
	token, err := s.signer.Load().sign(*result.Session)
	if err != nil {
		return nil, err
	}
	out := &sessionOutput{CacheControl: "no-store", Body: web.Answer(ctx, SessionState{
		ID: result.Session.ID, Token: token, TokenType: "Bearer",
		IssuedAt: result.Session.IssuedAt, ExpiresAt: result.Session.ExpiresAt, User: *result.User,
	})}
	if result.replayed {
		out.Replayed = "true"
	}
	return out, nil
}

type currentInput struct {
	Authorization string `header:"Authorization" doc:"Bearer <token>"`
}

func (s *Service) deleteSession(ctx context.Context, in *currentInput) (*struct{}, error) {
	token, ok := web.Bearer(in.Authorization)
	if !ok {
		return nil, errNoSession
	}
	return nil, s.logOut(ctx, token)
}

type keysOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         JWKS
}

func (s *Service) getKeys(context.Context, *struct{}) (*keysOutput, error) {
	signer := s.signer.Load()
	if signer == nil {
		return nil, web.Unavailable("The service is starting, try again")
	}
	return &keysOutput{CacheControl: "public, max-age=300", Body: signer.jwks()}, nil
}
