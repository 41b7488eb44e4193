package user

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/services/web"
)

// logIn starts a session for whoever proves to be the user whose name or
// e-mail address login is. An unknown name, a wrong password and a name
// without a user that is locked out look and cost the same as with one.
func (s *Service) logIn(ctx context.Context, login, password string, key web.Key) (answer, error) {
	signer := s.signer.Load()
	if signer == nil {
		return answer{}, web.Unavailable("The service is starting, try again")
	}
	name := sha256.Sum256([]byte(strings.ToLower(login)))
	if err := s.checkLockout(ctx, name); err != nil {
		return answer{}, err
	}
	column := "username"
	if strings.Contains(login, "@") {
		column = "email"
	}
	found, err := load(ctx, s.cfg.DB, `lower(`+column+`) = lower($1)`, login)
	hash := s.hasher.dummy
	switch {
	case err == nil:
		hash = found.passwordHash
	case !errors.Is(err, errNotFound):
		return answer{}, fmt.Errorf("log in: %w", err)
	}
	// No connection is held while the password is hashed.
	right, err := s.hasher.verify(ctx, password, hash)
	if err != nil {
		return answer{}, fmt.Errorf("log in: %w", err)
	}
	if !right || found.ID.IsZero() {
		if err := s.countFailure(ctx, name); err != nil {
			return answer{}, err
		}
		return answer{}, errCredentials
	}
	request := web.FromContext(ctx)
	ctx = causedBy(ctx, found.ID)
	result, err := s.change(ctx, found.ID, web.Precondition{}, key, func(u User, batch *pgx.Batch, result *answer) error {
		at := now()
		err := u.logIn(request.IP, request.UserAgent, at)
		if errors.Is(err, errNotActive) {
			return errLoginRefused // told only to who knows the password
		}
		session := newSession(found.ID, at, s.cfg.SessionTTL)
		session.queueInsert(batch)
		batch.Queue(`delete from login_attempts where login = $1`, name[:])
		result.Session = &session
		return err
	})
	if err != nil {
		return answer{}, fmt.Errorf("log in: %w", err)
	}
	return result, nil
}

func (s *Service) checkLockout(ctx context.Context, name [sha256.Size]byte) error {
	var until time.Time
	err := s.cfg.DB.QueryRow(ctx, `select locked_until from login_attempts where login = $1 and locked_until > now()`, name[:]).Scan(&until)
	switch {
	case err == nil:
		return &lockedError{until: until}
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	}
	return fmt.Errorf("check lock-out: %w", err)
}

// countFailure counts a failed log-in under a name. Failures further apart
// than the lock-out's length do not add up.
func (s *Service) countFailure(ctx context.Context, name [sha256.Size]byte) error {
	_, err := s.cfg.DB.Exec(ctx, `
		insert into login_attempts as a (login, failures, last_at, locked_until)
		values ($1, 1, now(), case when $2::int <= 1 then now() + $3::interval end)
		on conflict (login) do update set
			last_at = now(),
			failures = case when a.last_at < now() - $3::interval or a.locked_until <= now() then 1 else a.failures + 1 end,
			locked_until = case
				when a.locked_until > now() then a.locked_until
				when a.last_at < now() - $3::interval or a.locked_until <= now() then case when $2::int <= 1 then now() + $3::interval end
				when a.failures + 1 >= $2::int then now() + $3::interval end`,
		name[:], s.cfg.MaxFailures, s.cfg.Lockout)
	if err != nil {
		return fmt.Errorf("count failed log-in: %w", err)
	}
	return nil
}

// logOut revokes the session of a token.
func (s *Service) logOut(ctx context.Context, token string) error {
	signer := s.signer.Load()
	if signer == nil {
		return web.Unavailable("The service is starting, try again")
	}
	current, err := signer.verify(token)
	if err != nil {
		return err
	}
	tag, err := s.cfg.DB.Exec(ctx, `update sessions set revoked_at = now() where id = $1 and revoked_at is null and expires_at > now()`, current.ID)
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return errNoSession
	}
	return nil
}

// authenticate gives the user of a token, by its signature alone.
func (s *Service) authenticate(token string) (string, error) {
	signer := s.signer.Load()
	if signer == nil {
		return "", web.Unavailable("The service is starting, try again")
	}
	current, err := signer.verify(token)
	if err != nil {
		return "", err
	}
	return current.UserID.String(), nil
}
