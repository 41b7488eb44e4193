package relay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// fails runs the relay until it stops by itself.
func (f *fixture) fails(t *testing.T) error {
	t.Helper()
	r, err := relay.New(f.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = r.Run(ctx)
	if err == nil {
		t.Fatal("the relay goes on where it should stop")
	}
	return err
}

// claimed gives an event with a header that belongs to CloudEvents.
func (f *fixture) claimed() outbox.Event {
	e := f.event("42", 99)
	e.ID = outbox.NewID()
	e.Headers = map[string]string{"ce_id": "x"}
	return e
}

// TestABadPackedRowIsNamed stops at packed rows that can't be read, and
// publishes what stands before the row and nothing of it.
func TestABadPackedRowIsNamed(t *testing.T) {
	row, claimed := outbox.NewID(), outbox.NewID()
	tests := map[string]struct {
		payload func(*fixture) []byte
		id      outbox.ID
		err     error // nil: any
	}{
		"no envelope":     {func(*fixture) []byte { return []byte(`{}`) }, row, envelope.ErrNotEnvelope},
		"no event":        {func(*fixture) []byte { return envelope.AppendStart(nil) }, row, envelope.ErrEmpty},
		"another version": {func(*fixture) []byte { return []byte{envelope.Magic, 9, 0} }, row, envelope.ErrVersion},
		"cut short": {func(f *fixture) []byte {
			b := pack(f.event("42", 98), f.event("42", 99))
			return b[:len(b)-1]
		}, row, envelope.ErrTruncated},
		"a header of CloudEvents": {func(f *fixture) []byte {
			e := f.claimed()
			e.ID = claimed
			return pack(f.event("42", 98), e)
		}, claimed, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			acks := f.observe(2)
			if err := f.start(t)(); err != nil { // makes the slot
				t.Fatal(err)
			}
			f.write(t, f.event("42", 1))
			f.transaction(t, func(s script) { s.exec(insertPacked, row, tt.payload(f)) })
			f.write(t, f.event("42", 2))
			err := f.fails(t)
			refused, ok := errors.AsType[*relay.RowError](err)
			if !ok || refused.ID != tt.id || refused.Commit == 0 || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("Run: %v, want a RowError for %v that wraps %v", err, tt.id, tt.err)
			}
			if acks.count != 1 {
				t.Errorf("%d records were published, want the one before the row", acks.count)
			}
		})
	}
}

// TestABadMessageIsNamedAndPassedOver stops at messages that can't be
// published. The error tells how to go on, which works, loses nothing else and
// is needed once.
func TestABadMessageIsNamedAndPassedOver(t *testing.T) {
	const sql = `select pg_logical_emit_message(true, 'walpost.outbox', $1::bytea)::text`
	tests := map[string]struct {
		sql     string
		content func(*fixture) []byte
		says    string
		err     error // nil: any
	}{
		"empty":       {sql, func(*fixture) []byte { return []byte{} }, "0 bytes", nil},
		"time only":   {sql, func(*fixture) []byte { return make([]byte, 8) }, "", envelope.ErrNotEnvelope},
		"no time":     {sql, func(f *fixture) []byte { return pack(f.event("42", 99)) }, "", envelope.ErrNotEnvelope},
		"a byte more": {sql, func(f *fixture) []byte { return append(append(make([]byte, 8), pack(f.event("42", 99))...), 'x') }, "event 1", envelope.ErrFlags},
		"a header of CloudEvents": {sql, func(f *fixture) []byte {
			return append(make([]byte, 8), pack(f.event("42", 98), f.claimed())...)
		}, `"ce_id"`, nil},
		"not transactional": {strings.Replace(sql, "true", "false", 1), func(f *fixture) []byte {
			return append(make([]byte, 8), pack(f.event("42", 99))...)
		}, "not transactional", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.config.TopicPartitions = 1
			if err := f.start(t)(); err != nil { // makes the slot
				t.Fatal(err)
			}
			var at string
			f.write(t, f.event("42", 1))
			f.transaction(t, func(s script) {
				s.row(f.event("42", 2))
				if err := s.tx.QueryRow(t.Context(), tt.sql, tt.content(f)).Scan(&at); err != nil {
					t.Fatal(err)
				}
				s.wal(f.event("42", 3))
			})
			message, err := lsn.Parse(at)
			if err != nil {
				t.Fatal(err)
			}
			transactional := tt.sql == sql
			for range 2 { // a restart alone changes nothing
				err := f.fails(t)
				refused, ok := errors.AsType[*relay.MessageError](err)
				if !ok || refused.LSN != message || refused.Prefix != outbox.DefaultPrefix || (refused.Commit != 0) != transactional {
					t.Fatalf("Run: %v, want a MessageError for %v", err, message)
				}
				if tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "--skip-message="+at+" ") && !strings.HasSuffix(err.Error(), "--skip-message="+at) {
					t.Errorf("Run: %v, want %q, %v and the way out", err, tt.says, tt.err)
				}
			}

			f.config.SkipMessages = []lsn.Pos{message}
			stop := f.start(t)
			f.write(t, f.event("42", 4))
			f.settled(t, 4)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			f.config.SkipMessages = nil
			stop = f.start(t)
			f.write(t, f.event("42", 5))
			f.settled(t, 5)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// settled waits for the record of version n and checks that those up to it are
// all there, in order, each with its own sequence, wherever some have come
// twice.
func (f *fixture) settled(t *testing.T, n int64) {
	t.Helper()
	var last int64
	for want := int(n); last < n; want++ {
		last = 0
		for i, e := range f.read(t, want) {
			if e.Sequence != e.AggregateVersion || e.Sequence > last+1 {
				t.Fatalf("record %d has sequence %d and version %d behind sequence %d", i, e.Sequence, e.AggregateVersion, last)
			}
			last = e.Sequence
		}
	}
}

// TestWhichMessagesAreRead reads messages of another prefix, and none at all.
func TestWhichMessagesAreRead(t *testing.T) {
	tests := map[string]struct {
		prefix   string
		messages relay.Messages
		want     []string // aggregates
	}{
		"default":        {want: []string{"default", "row"}},
		"another prefix": {prefix: "billing", want: []string{"billing", "row"}},
		"ignored":        {messages: relay.IgnoreMessages, want: []string{"row"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.config.TopicPartitions = 1
			f.config.MessagePrefix, f.config.Messages = tt.prefix, tt.messages
			stop := f.start(t)
			f.transaction(t, func(s script) {
				s.wal(f.event("default", 1))
				s.exec(emit, "billing", pack(f.event("billing", 1)))
				s.exec(emit, "walpost.outbox.", []byte("begins like ours"))
				s.exec(emit, "", []byte("without a prefix"))
				if tt.messages == relay.IgnoreMessages {
					s.exec(`select pg_logical_emit_message(false, 'walpost.outbox', 'x')`)
				}
				s.row(f.event("row", 1))
			})
			var got []string
			for i, e := range f.read(t, len(tt.want)) {
				got = append(got, e.Subject)
				if e.Sequence != int64(i+1) {
					t.Errorf("%s has sequence %d, want %d", e.Subject, e.Sequence, i+1)
				}
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("events of %v come, want %v", got, tt.want)
			}
		})
	}
}
