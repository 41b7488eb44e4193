// Package wal reads PostgreSQL's logical replication stream from one slot.
//
// After START_REPLICATION the stream owns the connection and reads it through
// one large buffer: one goroutine calls Next, one may call Confirm beside it.
// The protocol is chapter "Streaming Replication Protocol" of PostgreSQL's
// documentation.
package wal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// silence is how long the server may send nothing before the connection counts
// as lost. Confirm asks for an answer at least every ten seconds, so a server
// that is alive is never silent for so long.
const silence = 45 * time.Second

// closeGrace bounds the farewell of Close.
const closeGrace = 2 * time.Second

// Options say what a Stream reads.
type Options struct {
	Slot        string
	Publication string

	// Messages asks for logical decoding messages too, whoever wrote them.
	// PostgreSQL has them since version 14.
	Messages bool

	// Start is the end LSN of the last transaction already done: those after
	// it are sent. The server moves a Start below the slot's confirmed
	// position up to it without a word, so compare the two beforehand.
	Start lsn.Pos

	// SenderTimeout is the wal_sender_timeout set for this connection: how
	// long the server keeps the slot busy for a client that vanished.
	SenderTimeout time.Duration
}

// A Stream is an open replication stream. Next and Close are for one
// goroutine, Confirm for one other.
type Stream struct {
	conn   net.Conn
	frames frameReader

	writing sync.Mutex // of conn
	status  []byte     // reused by Confirm
}

// Connect opens a replication connection to the database of config. It is used
// for the commands of replication slots, and turned into a stream by [Start].
func Connect(ctx context.Context, config *pgconn.Config, senderTimeout time.Duration) (*pgconn.PgConn, error) {
	config = config.Copy()
	config.RuntimeParams["replication"] = "database"
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walpost relay" // in pg_stat_replication
	}
	if senderTimeout > 0 {
		config.RuntimeParams["wal_sender_timeout"] = fmt.Sprintf("%dms", senderTimeout.Milliseconds())
	}
	// Text must arrive as the table stores it.
	config.RuntimeParams["client_encoding"] = "UTF8"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open a replication connection: %w", err)
	}
	return conn, nil
}

// Start opens a connection and begins to stream. ctx bounds the start only; a
// slot in use gives a *pgconn.PgError with code 55006, one that is missing
// 42704, one that was invalidated 55000.
func Start(ctx context.Context, config *pgconn.Config, o Options) (*Stream, error) {
	conn, err := Connect(ctx, config, o.SenderTimeout)
	if err != nil {
		return nil, err
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over the replication connection: %w", err), conn.Close(ctx))
	}
	s := &Stream{conn: hijacked.Conn}
	s.frames.conn = hijacked.Conn
	stop := context.AfterFunc(ctx, s.Interrupt)
	defer stop()
	if err := s.start(o); err != nil {
		_ = s.conn.Close() // the error below says what matters
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("start replication from slot %s at %v: %w", o.Slot, o.Start, err)
	}
	return s, nil
}

// start sends START_REPLICATION and waits until the server streams. Version 1
// of the protocol sends a transaction when it is committed, as one; the server
// keeps a large one on its disk until then, so that we need not.
func (s *Stream) start(o Options) error {
	messages := ""
	if o.Messages {
		messages = `, messages 'true'`
	}
	sql := fmt.Sprintf(`START_REPLICATION SLOT %s LOGICAL %v (proto_version '1', publication_names %s, binary 'true'%s)`,
		pgx.Identifier{o.Slot}.Sanitize(), o.Start, literal(pgx.Identifier{o.Publication}.Sanitize()), messages)
	query, err := (&pgproto3.Query{String: sql}).Encode(nil)
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(query); err != nil {
		return err
	}
	for {
		kind, body, err := s.frames.next()
		if err != nil {
			return err
		}
		switch kind {
		case 'W': // CopyBothResponse
			return nil
		case 'E':
			return serverError(body)
		}
		// Notices and parameter changes say nothing we need.
	}
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Interrupt ends a Next that waits, from any goroutine: it and later ones
// return an error. Confirm still works.
func (s *Stream) Interrupt() {
	// Only Next's own deadlines could overwrite this one: see fill.
	s.frames.interrupted.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
}

// Close says farewell, waits a moment for the server to let go of the slot,
// and closes the connection. Only the connection's own failure is an error.
func (s *Stream) Close() error {
	s.frames.interrupted.Store(false)
	s.frames.closing = true
	_ = s.conn.SetDeadline(time.Now().Add(closeGrace)) // fails only on a closed connection
	if done, err := (&pgproto3.CopyDone{}).Encode(nil); err == nil {
		if _, err = s.conn.Write(done); err == nil {
			// What the server still sends before its own CopyDone comes again.
			for kind := byte(0); kind != 'c' && kind != 'E' && err == nil; {
				kind, _, err = s.frames.next()
			}
		}
	}
	if terminate, err := (&pgproto3.Terminate{}).Encode(nil); err == nil {
		_, _ = s.conn.Write(terminate) // a courtesy
	}
	return s.conn.Close()
}

func serverError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return fmt.Errorf("decode the server's error: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&m)
}
