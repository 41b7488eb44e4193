package user

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/outbox"
)

const columns = `id, username, email, full_name, date_of_birth::text, password_hash, status,
	login_count, last_login_at, last_login_ip, last_login_user_agent, version, created_at, updated_at`

// querier is a pgx pool, connection or transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// LoadState gives a user's state as it stands in the database. Compare its
// JSON with what folding the user's events gives: they are equal.
func LoadState(ctx context.Context, db querier, id outbox.ID) (State, error) {
	r, err := load(ctx, db, `id = $1`, id)
	return r.State, err
}

// LoadStates gives at most limit users' states in the order of their ids,
// beginning behind after; the zero ID begins at the first.
func LoadStates(ctx context.Context, db querier, after outbox.ID, limit int) ([]State, error) {
	return list(ctx, db, filter{}, after, limit)
}

// A row is a user's: its state and what only the service knows.
type row struct {
	State
	passwordHash string
}

// load gives the row of the one user for whom where holds.
func load(ctx context.Context, db querier, where string, args ...any) (row, error) {
	rows, err := db.Query(ctx, `select `+columns+` from users where `+where, args...)
	if err != nil {
		return row{}, fmt.Errorf("read user: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scan)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return row{}, errNotFound
	case err != nil:
		return row{}, fmt.Errorf("read user: %w", err)
	}
	return r, nil
}

// scan reads columns.
func scan(from pgx.CollectableRow) (row, error) {
	var (
		r              row
		loginAt        *time.Time
		loginIP, agent *string
	)
	err := from.Scan(&r.ID, &r.Username, &r.Email, &r.FullName, &r.DateOfBirth, &r.passwordHash, &r.Status,
		&r.LoginCount, &loginAt, &loginIP, &agent, &r.Version, &r.CreatedAt, &r.UpdatedAt)
	r.CreatedAt, r.UpdatedAt = r.CreatedAt.UTC(), r.UpdatedAt.UTC()
	if loginAt != nil && loginIP != nil && agent != nil {
		r.LastLogin = &LastLogin{At: loginAt.UTC(), IP: *loginIP, UserAgent: *agent}
	}
	return r, err
}

// filter narrows a list; empty members match everything.
type filter struct{ username, email string }

func list(ctx context.Context, db querier, f filter, after outbox.ID, limit int) ([]State, error) {
	if strings.ContainsRune(f.username+f.email, 0) {
		return nil, nil // PostgreSQL's text holds no NUL, so nobody has it
	}
	// Only the conditions asked for stand in the statement, so that each shape
	// gets a plan with the index that fits it.
	where, args := `id > $1`, []any{after, limit}
	if f.username != "" {
		args = append(args, f.username)
		where += fmt.Sprintf(` and lower(username) = lower($%d)`, len(args))
	}
	if f.email != "" {
		args = append(args, f.email)
		where += fmt.Sprintf(` and lower(email) = lower($%d)`, len(args))
	}
	rows, err := db.Query(ctx, `select `+columns+` from users where `+where+` order by id limit $2`, args...)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	states, err := pgx.CollectRows(rows, func(from pgx.CollectableRow) (State, error) {
		r, err := scan(from)
		return r.State, err
	})
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return states, nil
}

// queueInsert adds the new user's row and its event to batch.
func (u User) queueInsert(ctx context.Context, batch *pgx.Batch, passwordHash string) error {
	s := u.State()
	return u.Queue(ctx, batch, `insert into users (id, username, email, full_name, date_of_birth, password_hash, status, version, created_at, updated_at)
		values ($1, $2, $3, $4, $5::text::date, $6, $7, $8, $9, $10)`,
		s.ID, s.Username, s.Email, s.FullName, s.DateOfBirth, passwordHash, s.Status, s.Version, s.CreatedAt, s.UpdatedAt)
}

// queueUpdate adds the change of the user's row and the events of it to batch.
func (u User) queueUpdate(ctx context.Context, batch *pgx.Batch) error {
	s := u.State()
	var at *time.Time
	var ip, agent *string
	if l := s.LastLogin; l != nil {
		at, ip, agent = &l.At, &l.IP, &l.UserAgent
	}
	return u.Queue(ctx, batch, `update users set username = $4, email = $5, full_name = $6, date_of_birth = $7::text::date, status = $8,
		login_count = $9, last_login_at = $10, last_login_ip = $11, last_login_user_agent = $12, updated_at = $13, version = $3
		where id = $1 and version = $2`,
		s.ID, u.Expected(), s.Version, s.Username, s.Email, s.FullName, s.DateOfBirth, s.Status,
		s.LoginCount, at, ip, agent, s.UpdatedAt)
}

// send sends batch in tx, in one round trip.
func send(ctx context.Context, tx pgx.Tx, batch *pgx.Batch) error {
	return refused(tx.SendBatch(ctx, batch).Close())
}

// refused turns a violation of a unique index into the rule behind it.
func refused(err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.ConstraintName {
		case "users_username_key":
			return &ruleError{rule: "unique", field: "username", message: "is taken"}
		case "users_email_key":
			return &ruleError{rule: "unique", field: "email", message: "is taken"}
		}
	}
	return err
}
