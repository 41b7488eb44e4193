package web

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// unavailable reports whether err is the database's absence or overload: the
// same request can succeed in a moment.
func unavailable(err error) bool {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		// connection exception; out of resources; shutdown, crash, starting up;
		// serialization failure and deadlock, which a second try mends.
		return slices.Contains([]string{"08", "53", "57"}, pgErr.Code[:2]) || pgErr.Code == "40001" || pgErr.Code == "40P01"
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// unstorable reports whether err is a text that PostgreSQL cannot hold: with
// NUL, or not UTF-8.
func unstorable(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "22021"
}
