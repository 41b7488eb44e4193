package write_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// interleaved runs transactions that overlap in any way, each writing in any
// way, with savepoints and rollbacks. Statements are run one after the other,
// so the order of the commits is known, and with it what must arrive: exactly
// the committed events, transaction by transaction.
func interleaved(t *testing.T, w *world) {
	direct := func(mode pgx.QueryExecMode) client {
		return pgxClient{connect(t, w.dsn, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode }), everyPgxWay}
	}
	sqlDB := sqlLink(t, w, link{mode: pgx.QueryExecModeCacheStatement, dsn: func(w *world) string { return w.dsn }})
	clients := []client{
		direct(pgx.QueryExecModeCacheStatement),
		direct(pgx.QueryExecModeSimpleProtocol),
		// One by way of the pooler, which has two connections: more
		// transactions could wait for each other.
		pgxClient{connect(t, w.pooled, func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeExec }), everyPgxWay},
		sqlClient{sqlDB, everySQLWay},
	}
	rapid.Check(t, func(rt *rapid.T) {
		m := model{T: rt, about: devstacktest.Name(t)}
		for _, c := range clients {
			m.sessions = append(m.sessions, &session{client: c})
		}
		defer m.end()
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			m.step(w, rapid.SampledFrom(m.sessions).Draw(rt, "session"))
		}
		for _, s := range m.sessions {
			if s.tx != nil {
				m.finish(s, rapid.SampledFrom([]string{"commit", "commit", "rollback"}).Draw(rt, "finish"))
			}
		}
		compare(rt, w.settle(rt, m.about), m.committed)
	})
}

// A model knows what must have been committed.
type model struct {
	*rapid.T
	about     string
	version   int64 // of the last event made: no two are alike
	sessions  []*session
	committed []outbox.Event
}

// A session is a connection with the transaction that is open on it.
type session struct {
	client client
	tx     *multi           // nil: none
	levels [][]outbox.Event // what the transaction has written, and behind each open savepoint
}

// multi is a transaction that can be written to in several ways.
type multi struct {
	transaction

	ways []transaction
}

func everyPgxWay(tx pgx.Tx) transaction {
	m := &multi{transaction: writeTx{pgxTx: pgxTx{tx}}, ways: []transaction{emitTx{pgxTx{tx}}}}
	for _, mode := range modes() {
		w := outbox.Writer{Mode: mode}
		m.ways = append(m.ways, writeTx{pgxTx{tx}, w}, queueTx{pgxTx{tx}, w}, changeTx{pgxTx{tx}, w}, queueChangeTx{pgxTx{tx}, w})
	}
	return m
}

func (m *model) step(w *world, s *session) {
	if s.tx == nil {
		tx, err := s.client.begin(m.Context())
		must(m, err)
		s.tx, s.levels = tx.(*multi), [][]outbox.Event{nil}
		return
	}
	top := len(s.levels) - 1
	switch action := rapid.SampledFrom([]string{"write", "write", "write", "refuse", "savepoint", "rollback to", "release", "commit", "commit", "rollback"}).Draw(m.T, "action"); {
	case action == "write":
		events := m.events(w)
		must(m, rapid.SampledFrom(s.tx.ways).Draw(m.T, "way").write(m.Context(), events))
		s.levels[top] = append(s.levels[top], events...)
	case action == "refuse":
		events := m.events(w)
		events[len(events)-1].Type = ""
		if err := s.tx.ways[1+rapid.IntRange(0, len(s.tx.ways)-2).Draw(m.T, "way")].write(m.Context(), events); err == nil {
			m.Fatalf("an event without a type was written")
		}
	case action == "savepoint":
		must(m, s.tx.exec(m.Context(), `savepoint s`))
		s.levels = append(s.levels, nil)
	case action == "rollback to" && top > 0:
		must(m, s.tx.exec(m.Context(), `rollback to s`)) // the latest of that name
		s.levels[top] = nil
	case action == "release" && top > 0:
		must(m, s.tx.exec(m.Context(), `release s`))
		s.levels[top-1] = append(s.levels[top-1], s.levels[top]...)
		s.levels = s.levels[:top]
	case action == "commit", action == "rollback":
		m.finish(s, action)
	}
}

func (m *model) finish(s *session, action string) {
	tx := s.tx
	s.tx = nil
	if action == "rollback" {
		must(m, tx.rollback(m.Context()))
		return
	}
	must(m, tx.commit(m.Context()))
	m.committed = append(m.committed, slices.Concat(s.levels...)...)
}

func (m *model) events(w *world) []outbox.Event {
	events := make([]outbox.Event, rapid.SampledFrom([]int{1, 1, 2, 3, 7, many}).Draw(m.T, "events"))
	size := rapid.SampledFrom([]int{0, 1, 50, 2_000, 90_000}).Draw(m.T, "size")
	if len(events) > 7 {
		size = min(size, 50)
	}
	for i := range events {
		m.version++
		e := w.event(m.about, m.version)
		e.AggregateID = string(rune('a' + m.version%3))
		e.Topic = w.topics[m.version%2]
		e.Payload = bytes.Repeat([]byte{byte(m.version)}, size)
		if i%2 == 1 {
			e.Headers = map[string]string{"x": e.AggregateID}
		}
		events[i] = e
	}
	return events
}

// end rolls back what a failure has left open: the next try begins without.
func (m *model) end() {
	for _, s := range m.sessions {
		if s.tx != nil {
			_ = s.tx.rollback(context.WithoutCancel(m.Context()))
			s.tx = nil
		}
	}
}
