package user

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/services/web"
)

// An answer is what an idempotency key keeps of a command: its result, or the
// rule that refused it.
type answer struct {
	User     *State   `json:"user,omitempty"`
	Session  *session `json:"session,omitempty"`
	Refusal  *refusal `json:"refusal,omitempty"`
	replayed bool     // it was given before
}

type refusal struct {
	Rule    string `json:"rule"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

// create makes a user, and records in a transaction of its own when a business
// rule refuses.
func (s *Service) create(ctx context.Context, ask CreationAsk, password string, key web.Key) (answer, error) {
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return answer{}, err
	}
	at := now()
	err = errors.Join(s.policy.checkEmail(ask.Email), s.policy.checkBirth(ask.DateOfBirth, at))
	var result answer
	if err == nil {
		result, err = s.insert(ctx, newUser(outbox.NewID(), ask, hash, at), key)
	}
	if rule, ok := errors.AsType[*ruleError](err); ok {
		result, err = s.refuse(ctx, ask, rule, key)
	}
	if err != nil {
		return answer{}, fmt.Errorf("create user: %w", err)
	}
	if result.replayed {
		return result, s.checkReplay(ctx, result, password)
	}
	return result, nil
}

func (s *Service) insert(ctx context.Context, u *User, key web.Key) (result answer, err error) {
	request := web.FromContext(ctx)
	if request.UserID == "" {
		request.UserID = u.ID.String() // nobody is logged in: who signs up causes it
	}
	created, err := event(u, UserCreated, u.State, request.EventHeaders())
	if err != nil {
		return answer{}, err
	}
	result = answer{User: &u.State}
	err = s.once(ctx, key, &result, func(tx pgx.Tx) error {
		var batch pgx.Batch
		queueInsert(&batch, u)
		return finish(ctx, tx, &batch, created, key, result)
	})
	return result, err
}

// once runs do in a transaction, or gives the answer that key keeps of an
// earlier run in result.
func (s *Service) once(ctx context.Context, key web.Key, result *answer, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.cfg.DB, func(tx pgx.Tx) error {
		var kept answer
		if found, err := key.Claim(ctx, tx, &kept); err != nil || found {
			kept.replayed = true
			*result = kept
			return err
		}
		return do(tx)
	})
}

// finish sends batch together with the event and the answer to keep: state,
// event and answer are committed at once, or none of them.
func finish(ctx context.Context, tx pgx.Tx, batch *pgx.Batch, e outbox.Event, key web.Key, result answer) error {
	if err := outbox.Queue(ctx, batch, e); err != nil {
		return err
	}
	if err := key.Queue(batch, result); err != nil {
		return err
	}
	return send(ctx, tx, batch)
}

// refuse records that rule refused ask. It has a transaction of its own, since
// that of the refused insert is gone.
func (s *Service) refuse(ctx context.Context, ask CreationAsk, rule *ruleError, key web.Key) (result answer, err error) {
	command := outbox.NewID().String()
	payload, err := json.Marshal(CreationFailed{
		CommandID: command, Request: ask, FailedAt: now(),
		Reason: RefusedState{Rule: rule.rule, Field: rule.field, Message: rule.message},
	})
	if err != nil {
		return answer{}, fmt.Errorf("encode %s: %w", UserCreationFailed, err)
	}
	result = answer{Refusal: &refusal{Rule: rule.rule, Field: rule.field, Message: rule.message}}
	err = s.once(ctx, key, &result, func(tx pgx.Tx) error {
		return finish(ctx, tx, new(pgx.Batch), outbox.Event{
			Topic: route(UserCreationFailed), AggregateType: AggregateCreation, AggregateID: command, AggregateVersion: 1,
			Type: UserCreationFailed, Payload: payload, Headers: web.FromContext(ctx).EventHeaders(),
		}, key, result)
	})
	return result, err
}

// checkReplay compares the password of a creation that came again, which no
// idempotency key keeps, with that of the user made. A refused creation kept
// none, and refuses whatever the password is.
func (s *Service) checkReplay(ctx context.Context, result answer, password string) error {
	if result.User == nil {
		return nil
	}
	u, err := load(ctx, s.cfg.DB, `id = $1`, result.User.ID)
	if err != nil {
		return err
	}
	same, err := s.hasher.verify(ctx, password, u.PasswordHash)
	if err == nil && !same {
		err = web.KeyReused()
	}
	return err
}

// update changes a user's profile. Where that changes nothing there is no new
// version and no event.
func (s *Service) update(ctx context.Context, id outbox.ID, c profileChange, p web.Precondition) (State, error) {
	result, err := s.change(ctx, id, p, web.Key{}, UserUpdated, func(u *User, _ *pgx.Batch, _ *answer) (map[string]any, error) {
		return u.update(c, s.policy, now())
	})
	if err != nil {
		return State{}, fmt.Errorf("update user %s: %w", id, err)
	}
	return *result.User, nil
}

// deactivate ends a user's life and all of its sessions.
func (s *Service) deactivate(ctx context.Context, id outbox.ID, p web.Precondition, key web.Key) (answer, error) {
	result, err := s.change(ctx, id, p, key, UserDeactivated, func(u *User, batch *pgx.Batch, _ *answer) (map[string]any, error) {
		batch.Queue(`update sessions set revoked_at = now() where user_id = $1 and revoked_at is null`, id)
		return u.deactivate(now())
	})
	if err != nil {
		return answer{}, fmt.Errorf("deactivate user %s: %w", id, err)
	}
	return result, nil
}

// change brings a user to its next version: apply changes u, gives the payload
// of the event that says so, nil for no change, and adds what else belongs to
// the change to the batch and to the answer. The row is locked before it is
// read, so that concurrent changes queue up here instead of failing.
func (s *Service) change(ctx context.Context, id outbox.ID, p web.Precondition, key web.Key, eventType string,
	apply func(*User, *pgx.Batch, *answer) (map[string]any, error),
) (result answer, err error) {
	err = s.once(ctx, key, &result, func(tx pgx.Tx) error {
		u, err := load(ctx, tx, `id = $1 for no key update`, id)
		if err != nil {
			return err
		}
		if err := p.Check(u.Version); err != nil {
			return err
		}
		var batch pgx.Batch
		result.User = &u.State
		payload, err := apply(u, &batch, &result)
		if err != nil || payload == nil {
			return err
		}
		request := web.FromContext(ctx)
		if request.UserID == "" && eventType == UserLoggedIn {
			request.UserID = u.ID.String()
		}
		e, err := event(u, eventType, payload, request.EventHeaders())
		if err != nil {
			return err
		}
		queueUpdate(&batch, u)
		return finish(ctx, tx, &batch, e, key, result)
	})
	return result, err
}
