package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"
)

// States of a [Letter].
const (
	StateDead    = "dead"    // its handler failed
	StateWaiting = "waiting" // it stands behind an event of its key that is dead
)

// ErrNoLetter says that table inbox_dead has no row of that id: it was handled
// or dropped, or never was.
var ErrNoLetter = errors.New("no such dead letter")

// ErrRedriven says that a letter can't be changed because it is on its way to
// its handler.
var ErrRedriven = errors.New("the letter is being redriven")

// database is a *pgxpool.Pool or a *pgx.Conn.
type database interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// DeadLetters are the events of table inbox_dead, of every consumer group of a
// database: those whose handler failed for good, and those that wait behind
// them because they are of the same key. It knows no handler: what is redriven
// is handled by a running [Inbox] of the letter's group.
//
// DB is a *pgxpool.Pool or a *pgx.Conn; the methods may be called from as many
// goroutines as DB may.
type DeadLetters struct {
	DB database
}

// A Letter is one event of table inbox_dead.
type Letter struct {
	ID          int64  // in the order of arrival, which is the order of handling
	Group       string // consumer group
	OrderingKey string // letters of one key are handled in order: "user/42"
	State       string // [StateDead] or [StateWaiting]

	EventID   string
	EventTime time.Time
	Type      string
	Topic     string
	Partition int32
	Offset    int64

	// Key, Headers and Payload are the record's, byte for byte. [DeadLetters.List]
	// leaves Headers and both payloads nil.
	Key             []byte
	Headers         []kgo.RecordHeader
	Payload         []byte
	PayloadBytes    int       // length of Payload
	OriginalPayload []byte    // before the first edit; nil where EditedAt is zero
	EditedAt        time.Time // the last edit; zero: never

	Error     string    // of the last attempt; empty where there was none
	Attempts  int       // of all redrives together, and those before
	FailedAt  time.Time // of a waiting letter: when it arrived
	RedriveAt time.Time // when it is to be handled again; zero: not at all

	Behind int // letters that wait behind a dead one; 0 for one that waits itself

	recordTime time.Time // the record's timestamp
	starts     int       // tries begun since the redrive; who has another number has lost the letter
}

// A Filter selects letters: those that match every field that is set. The zero
// Filter selects all.
type Filter struct {
	IDs          []int64
	Group        string
	State        string // [StateDead] or [StateWaiting]
	Type         string // of the event
	OrderingKey  string
	Topic        string
	FailedAfter  time.Time // failed at this time or later
	FailedBefore time.Time // failed before this time
	Error        string    // stands somewhere in the error, in upper or lower case
}

// IsZero reports whether f selects all letters.
func (f *Filter) IsZero() bool {
	return f.IDs == nil && f.Group == "" && f.State == "" && f.Type == "" && f.OrderingKey == "" && f.Topic == "" &&
		f.FailedAfter.IsZero() && f.FailedBefore.IsZero() && f.Error == ""
}

// where gives the condition on row d of inbox_dead and its arguments.
func (f *Filter) where() (sql string, args []any, err error) {
	if f.State != "" && f.State != StateDead && f.State != StateWaiting {
		return "", nil, fmt.Errorf("filter: state %q: use %q or %q", f.State, StateDead, StateWaiting)
	}
	var b strings.Builder
	b.WriteString("true")
	and := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&b, " and "+condition, len(args))
	}
	if f.IDs != nil {
		and("d.id = any($%d::bigint[])", f.IDs)
	}
	for _, equal := range [...]struct{ column, value string }{
		{"consumer_group", f.Group}, {"state", f.State}, {"type", f.Type}, {"ordering_key", f.OrderingKey}, {"topic", f.Topic},
	} {
		if equal.value != "" {
			and("d."+equal.column+" = $%d::text", equal.value)
		}
	}
	if !f.FailedAfter.IsZero() {
		and("d.failed_at >= $%d::timestamptz", f.FailedAfter)
	}
	if !f.FailedBefore.IsZero() {
		and("d.failed_at < $%d::timestamptz", f.FailedBefore)
	}
	if f.Error != "" {
		and("strpos(lower(d.error), lower($%d::text)) > 0", f.Error)
	}
	return b.String(), args, nil
}
