package user

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		result, err = s.insert(ctx, ask, hash, at, key)
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

func (s *Service) insert(ctx context.Context, ask CreationAsk, hash string, at time.Time, key web.Key) (result answer, err error) {
	id := outbox.NewID()
	u := User{s.users.New(id.String())}
	if err := u.create(id, ask, at); err != nil {
		return answer{}, err
	}
	ctx = causedBy(ctx, id)
	result = answer{User: new(u.State())}
	err = s.once(ctx, key, &result, func(_ pgx.Tx, batch *pgx.Batch) error { return u.queueInsert(ctx, batch, hash) })
	return result, err
}

// causedBy makes who signs up or logs in the cause of it, where nobody is
// logged in yet.
func causedBy(ctx context.Context, id outbox.ID) context.Context {
	if outbox.MetadataFrom(ctx).UserID != "" {
		return ctx
	}
	return outbox.WithMetadata(ctx, outbox.Metadata{UserID: id.String()})
}

// once runs do in a transaction, or gives the answer that key keeps of an
// earlier run in result. The batch that do fills, with state and events, is
// sent with the answer to keep: all of it is committed at once, or nothing. An
// empty batch changes nothing, and no answer is kept.
func (s *Service) once(ctx context.Context, key web.Key, result *answer, do func(pgx.Tx, *pgx.Batch) error) error {
	return pgx.BeginFunc(ctx, s.cfg.DB, func(tx pgx.Tx) error {
		var kept answer
		if found, err := key.Claim(ctx, tx, &kept); err != nil || found {
			kept.replayed = true
			*result = kept
			return err
		}
		var batch pgx.Batch
		if err := do(tx, &batch); err != nil || batch.Len() == 0 {
			return err
		}
		if err := key.Queue(&batch, *result); err != nil {
			return err
		}
		return send(ctx, tx, &batch)
	})
}

// refuse records that rule refused ask. It has a transaction of its own, since
// that of the refused insert is gone.
func (s *Service) refuse(ctx context.Context, ask CreationAsk, rule *ruleError, key web.Key) (result answer, err error) {
	command := outbox.NewID().String()
	failed, err := creationFailed().Event(command, 1, CreationFailed{
		CommandID: command, Request: ask, FailedAt: now(),
		Reason: RefusedState{Rule: rule.rule, Field: rule.field, Message: rule.message},
	})
	if err != nil {
		return answer{}, err
	}
	result = answer{Refusal: &refusal{Rule: rule.rule, Field: rule.field, Message: rule.message}}
	err = s.once(ctx, key, &result, func(_ pgx.Tx, batch *pgx.Batch) error { return outbox.Queue(ctx, batch, failed) })
	return result, err
}

// checkReplay compares the password of a creation that came again, which no
// idempotency key keeps, with that of the user made. A refused creation kept
// none, and refuses whatever the password is.
func (s *Service) checkReplay(ctx context.Context, result answer, password string) error {
	if result.User == nil {
		return nil
	}
	row, err := load(ctx, s.cfg.DB, `id = $1`, result.User.ID)
	if err != nil {
		return err
	}
	same, err := s.hasher.verify(ctx, password, row.passwordHash)
	if err == nil && !same {
		err = web.KeyReused()
	}
	return err
}

// update changes a user's profile. Where that changes nothing there is no new
// version and no event.
func (s *Service) update(ctx context.Context, id outbox.ID, ask UpdateBody, p web.Precondition) (State, error) {
	result, err := s.change(ctx, id, p, web.Key{}, func(u User, _ *pgx.Batch, _ *answer) error {
		return u.update(ask, s.policy, now())
	})
	if err != nil {
		return State{}, fmt.Errorf("update user %s: %w", id, err)
	}
	return *result.User, nil
}

// deactivate ends a user's life and all of its sessions.
func (s *Service) deactivate(ctx context.Context, id outbox.ID, p web.Precondition, key web.Key) (answer, error) {
	result, err := s.change(ctx, id, p, key, func(u User, batch *pgx.Batch, _ *answer) error {
		batch.Queue(`update sessions set revoked_at = now() where user_id = $1 and revoked_at is null`, id)
		return u.deactivate(now())
	})
	if err != nil {
		return answer{}, fmt.Errorf("deactivate user %s: %w", id, err)
	}
	return result, nil
}

// change runs command on a user and saves what it records; it may add what
// else belongs to the change to the batch and to the answer. The row is locked
// before it is read, so that concurrent changes queue up here instead of
// failing.
func (s *Service) change(ctx context.Context, id outbox.ID, p web.Precondition, key web.Key,
	command func(User, *pgx.Batch, *answer) error,
) (result answer, err error) {
	err = s.once(ctx, key, &result, func(tx pgx.Tx, batch *pgx.Batch) error {
		row, err := load(ctx, tx, `id = $1 for no key update`, id)
		if err != nil {
			return err
		}
		if err := p.Check(row.Version); err != nil {
			return err
		}
		u := User{s.users.Load(id.String(), row.Version, row.State)}
		if err := command(u, batch, &result); err != nil {
			return err
		}
		result.User = new(u.State())
		return u.queueUpdate(ctx, batch)
	})
	return result, err
}
