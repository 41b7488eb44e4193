package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/outbox/inbox"
)

type postgresFlags struct {
	daemon.PostgresFlags `embed:"" envprefix:"INBOX_"`
}

// connectLimit bounds the wait for a server that does not answer.
const connectLimit = 15 * time.Second

// withLetters gives f the dead letters of the flags' database.
func (p *postgresFlags) withLetters(ctx context.Context, f func(inbox.DeadLetters) error) error {
	dsn, err := p.DSN()
	if err != nil {
		return usage(err.Error())
	}
	connecting, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	conn, err := pgx.Connect(connecting, dsn)
	if err != nil {
		return p.hint(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the work is done or has its own error
	return p.hint(f(inbox.DeadLetters{DB: conn}))
}

// hint adds what to type next.
func (p *postgresFlags) hint(err error) error {
	if errors.Is(err, inbox.ErrNoLetter) {
		return fmt.Errorf("%w; it may have been handled or dropped: see inbox dead list", err)
	}
	if errors.Is(err, inbox.ErrRedriven) {
		return fmt.Errorf("%w; wait until it is handled or dead again: see inbox dead list --state dead", err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		if explained := p.Explain(err); explained != err { //nolint:errorlint // the very same error means that there is no hint
			return explained
		}
		return fmt.Errorf("%w; is it running? try: psql with the same connection string, or name another with --postgres", err)
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch e.Code {
	case "42P01": // undefined_table
		return fmt.Errorf("%w; is this the service's database, with the migrations of outbox/schema? apply them: goose up", err)
	case "42501": // insufficient_privilege
		return fmt.Errorf("%w; as the owner of the tables: grant select, update, delete on inbox_dead to the role, and for drop: grant insert on inbox to it", err)
	}
	return err
}
