package relay

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A TableError says that the outbox table is not of the form the relay reads.
type TableError struct {
	Table string
	Err   error
}

func (e *TableError) Error() string {
	return fmt.Sprintf("table %s is no outbox: %v; compare it with the migration in outbox/schema", e.Table, e.Err)
}
func (e *TableError) Unwrap() error { return e.Err }

// A RowError says that a committed row can't be made a record. Nothing behind
// it is published until it is dealt with. Of a row that holds several events
// none is published.
type RowError struct {
	ID     outbox.ID // the event's; of a row of several the row's, where none of them is to blame
	Commit lsn.Pos
	Err    error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("outbox row %v (transaction %v): %v; mend what wrote it. It comes again at every start, as it was written: to go on without it, start with --poison=dead-letter", e.ID, e.Commit, e.Err)
}
func (e *RowError) Unwrap() error { return e.Err }

// A MessageError says that a logical decoding message with the relay's prefix
// can't be made records. Nothing of it and nothing behind it is published
// until it is dealt with.
type MessageError struct {
	LSN    lsn.Pos // behind the message: what pg_logical_emit_message returned
	Prefix string
	Commit lsn.Pos // its transaction; 0: it belongs to none
	Err    error
}

func (e *MessageError) Error() string {
	where := "outside a transaction"
	if e.Commit != 0 {
		where = fmt.Sprintf("transaction %v", e.Commit)
	}
	return fmt.Sprintf("message %q at %v (%s): %v; mend its writer, and to go on without this message start once with --skip-message=%v",
		e.Prefix, e.LSN, where, e.Err, e.LSN)
}
func (e *MessageError) Unwrap() error { return e.Err }

// A RecordError says that Kafka refused a record for good, or would. Nothing behind it
// is confirmed: after the cause is mended, the relay goes on with it.
type RecordError struct {
	ID     string
	Topic  string
	Key    string
	Commit lsn.Pos // of its transaction
	Err    error
	Hint   string
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("event %s for topic %s, key %q (transaction %v): %v; %s; or, to go on without it, start with --poison=dead-letter",
		e.ID, e.Topic, e.Key, e.Commit, e.Err, e.Hint)
}
func (e *RecordError) Unwrap() error { return e.Err }

// A TopicError says why no record can go to a topic.
type TopicError struct {
	Topic  string
	Reason string // in one word, as dead letters name it
	Err    error
	Hint   string
}

func (e *TopicError) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("topic %s: %v", e.Topic, e.Err)
	}
	return fmt.Sprintf("topic %s: %v; %s", e.Topic, e.Err, e.Hint)
}
func (e *TopicError) Unwrap() error { return e.Err }

// A GapError says that events may have been lost between the stored position
// and what the slot still delivers. The relay does not go on by itself.
type GapError struct {
	What string
	Hint string
}

func (e *GapError) Error() string { return e.What + "; " + e.Hint }

// permanent reports whether starting again would only meet err again.
func permanent(err error) bool {
	if err == nil || learned(err) {
		return false
	}
	if isA[*slot.SetupError](err) || isA[*TableError](err) || isA[*RowError](err) || isA[*MessageError](err) || isA[*RecordError](err) || isA[*TopicError](err) || isA[*GapError](err) {
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code[:min(2, len(pg.Code))] { // the class
		case "28", "42", "3D": // authorization, missing objects and rights, no such database
			return true
		}
		return pg.Code == slot.CodeLost
	}
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) ||
		errors.Is(err, kerr.SaslAuthenticationFailed)
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// busy reports whether another relay has the slot.
func busy(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == slot.CodeBusy
}
