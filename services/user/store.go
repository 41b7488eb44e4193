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
	u, err := load(ctx, db, `id = $1`, id)
	if err != nil {
		return State{}, err
	}
	return u.State, nil
}

// LoadStates gives at most limit users' states in the order of their ids,
// beginning behind after; the zero ID begins at the first.
func LoadStates(ctx context.Context, db querier, after outbox.ID, limit int) ([]State, error) {
	return list(ctx, db, filter{}, after, limit)
}

// load gives the one user for whom where holds.
func load(ctx context.Context, db querier, where string, args ...any) (*User, error) {
	rows, err := db.Query(ctx, `select `+columns+` from users where `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	u, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read user: %w", err)
	}
	return u, nil
}

// scan reads a row of columns.
func scan(row pgx.CollectableRow) (*User, error) {
	var (
		u             User
		loginAt       *time.Time
		loginIP, from *string
	)
	err := row.Scan(&u.ID, &u.Username, &u.Email, &u.FullName, &u.DateOfBirth, &u.PasswordHash, &u.Status,
		&u.LoginCount, &loginAt, &loginIP, &from, &u.Version, &u.CreatedAt, &u.UpdatedAt)
	if err != nil {
		return nil, err
	}
	u.CreatedAt, u.UpdatedAt = u.CreatedAt.UTC(), u.UpdatedAt.UTC()
	if loginAt != nil && loginIP != nil && from != nil {
		u.LastLogin = &LastLogin{At: loginAt.UTC(), IP: *loginIP, UserAgent: *from}
	}
	return &u, nil
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
	states, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (State, error) {
		u, err := scan(row)
		if err != nil {
			return State{}, err
		}
		return u.State, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return states, nil
}

// queueInsert adds u as a new row to batch.
func queueInsert(batch *pgx.Batch, u *User) {
	batch.Queue(`insert into users (id, username, email, full_name, date_of_birth, password_hash, status, version, created_at, updated_at)
		values ($1, $2, $3, $4, $5::text::date, $6, $7, $8, $9, $10)`,
		u.ID, u.Username, u.Email, u.FullName, u.DateOfBirth, u.PasswordHash, u.Status, u.Version, u.CreatedAt, u.UpdatedAt)
}

// queueUpdate adds to batch the change that made u's version of the one
// before. The batch fails where the row is not at that one.
func queueUpdate(batch *pgx.Batch, u *User) {
	var at *time.Time
	var ip, agent *string
	if l := u.LastLogin; l != nil {
		at, ip, agent = &l.At, &l.IP, &l.UserAgent
	}
	batch.Queue(`update users set username = $3, email = $4, full_name = $5, date_of_birth = $6::text::date, status = $7,
		login_count = $8, last_login_at = $9, last_login_ip = $10, last_login_user_agent = $11, updated_at = $12, version = $2
		where id = $1 and version = $2 - 1`,
		u.ID, u.Version, u.Username, u.Email, u.FullName, u.DateOfBirth, u.Status,
		u.LoginCount, at, ip, agent, u.UpdatedAt).Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != 1 {
			return fmt.Errorf("update user %s: it is not at version %d any more", u.ID, u.Version-1)
		}
		return nil
	})
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
