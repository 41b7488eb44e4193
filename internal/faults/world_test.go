package faults

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// patience is how long anything may take to get going again.
const patience = 90 * time.Second

// A delivery is how the relay is told to deliver.
type delivery string

const (
	atLeastOnce delivery = "at-least-once"
	exactlyOnce delivery = "exactly-once"
)

// A world is a database with an outbox and a ledger, writers, and a relay that
// reaches PostgreSQL and Kafka through a network that may fail.
type world struct {
	*servers
	t        *testing.T
	delivery delivery
	name     string
	pool     *pgxpool.Pool // straight to the server
	kafka    []kgo.Opt     // straight to the brokers
	topics   []string
	load     *load
	relay    *devstacktest.Program
	said     *transcript // by the relay
	seen     *follower
}

// A transcript keeps what a program says.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newWorld makes a world whose relay has begun to stream. The relay connects to
// the brokers at relayBrokers, everybody else at brokers. args are more of the
// relay's.
func newWorld(t *testing.T, s *servers, d delivery, brokers, relayBrokers []string, args ...string) *world {
	t.Helper()
	w := &world{servers: s, t: t, delivery: d, name: devstacktest.Name(t), kafka: []kgo.Opt{kgo.SeedBrokers(brokers...)}}
	w.topics = []string{w.name + ".a", w.name + ".b"}
	w.makeDatabase()
	w.makeTopics()
	w.seen = follow(t, w.kafka, w.topics)
	w.load = &load{pool: w.pool, topics: w.topics}
	dsn, err := s.pgNetwork.DSN(w.pool.Config().ConnString())
	w.must(err)
	args = append([]string{
		s.relay, "run", "--postgres", dsn, "--brokers", strings.Join(relayBrokers, ","), "--source", w.name, "--slot", w.name,
		"--positions-topic", "_" + w.name, "--ops-listen", "127.0.0.1:0",
	}, args...)
	if d != atLeastOnce {
		args = append(args, "--delivery", string(d))
	}
	w.said = new(transcript)
	w.relay = devstacktest.NewProgram(t, io.MultiWriter(w.said, t.Output()), args...)
	w.relay.Start()
	devstacktest.Wait(t, "the relay to stream", patience, w.streaming)
	return w
}

// makeDatabase makes the database, which is dropped with its slot at the end.
func (w *world) makeDatabase() {
	w.t.Helper()
	dsn, err := w.postgres.CreateDatabase(w.t.Context(), w.name)
	w.must(err)
	config, err := pgxpool.ParseConfig(dsn)
	w.must(err)
	config.MaxConns = writers + 2
	config.ConnConfig.RuntimeParams["application_name"] = "writers"
	w.pool, err = pgxpool.NewWithConfig(w.t.Context(), config)
	w.must(err)
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	w.must(err)
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	_, err = w.pool.Exec(w.t.Context(), up+createLedger)
	w.must(err)
	_, err = w.pool.Exec(w.t.Context(), `insert into keys select 'k' || n, 0 from generate_series(0, $1 - 1) n`, keys)
	w.must(err)
	w.t.Cleanup(func() {
		w.pool.Close()
		if w.t.Failed() {
			return // what is wrong may be the server
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, w.postgres.DSN)
		if err == nil {
			_, err1 := conn.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1`, w.name)
			_, err2 := conn.Exec(ctx, `drop database `+w.name+` with (force)`)
			err = errors.Join(err1, err2, conn.Close(ctx))
		}
		if err != nil {
			w.t.Errorf("drop database %s: %v", w.name, err)
		}
	})
}

// makeTopics makes the topics as soon as the brokers let it.
func (w *world) makeTopics() {
	w.t.Helper()
	client, err := kgo.NewClient(w.kafka...)
	w.must(err)
	defer client.Close()
	devstacktest.Wait(w.t, "the topics to be made", patience, func() bool {
		made, err := kadm.NewClient(client).CreateTopics(w.t.Context(), 3, -1, nil, w.topics...)
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			w.t.Logf("make topics: %v", err)
		}
		return err == nil || errors.Is(err, kerr.TopicAlreadyExists)
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// flow waits until n events more than now are in Kafka.
func (w *world) flow(n int) {
	w.t.Helper()
	w.must(w.seen.reach(w.seen.count()+n, patience, w.relay.Done()))
}

// written waits until n events more than now are committed.
func (w *world) written(n int64) {
	w.t.Helper()
	n += w.load.committed.Load()
	devstacktest.Wait(w.t, "more commits", patience, func() bool { return w.load.committed.Load() >= n || w.t.Failed() })
}

// walsender is the process id of the walsender that has the slot, 0 where
// there is none.
func (w *world) walsender() (pid int) {
	w.must(w.pool.QueryRow(w.t.Context(),
		`select coalesce(max(active_pid), 0) from pg_replication_slots where slot_name = $1`, w.name).Scan(&pid))
	return pid
}

// streaming tells whether PostgreSQL streams to the relay: a slot that is being
// made is in use too.
func (w *world) streaming() (yes bool) {
	w.must(w.pool.QueryRow(w.t.Context(), `
		select exists (select from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
			where s.slot_name = $1 and r.state in ('catchup', 'streaming'))`, w.name).Scan(&yes))
	return yes
}

// await waits for what a channel tells.
func (w *world) await(what string, done <-chan struct{}) {
	w.t.Helper()
	select {
	case <-done:
	case <-w.relay.Done():
		w.t.Fatalf("waited for %s: the relay has ended", what)
	case <-time.After(patience):
		w.t.Fatalf("waited %v for %s", patience, what)
	}
}

// slotFree waits until PostgreSQL has given the slot up.
func (w *world) slotFree() {
	w.t.Helper()
	devstacktest.Wait(w.t, "the slot to be given up", patience, func() bool { return w.walsender() == 0 })
}

// confirmed is the position that the slot has.
func (w *world) confirmed() lsn.Pos {
	w.t.Helper()
	var text string
	w.must(w.pool.QueryRow(w.t.Context(), `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, w.name).Scan(&text))
	p, err := lsn.Parse(text)
	w.must(err)
	return p
}

// logEnd is where PostgreSQL writes its log now.
func (w *world) logEnd() lsn.Pos {
	w.t.Helper()
	var text string
	w.must(w.pool.QueryRow(w.t.Context(), `select pg_current_wal_insert_lsn()::text`).Scan(&text))
	p, err := lsn.Parse(text)
	w.must(err)
	return p
}

// settle waits until all that was committed is in Kafka and confirmed, stops
// the relay, and checks every promise: so many transactions may come again at
// the most. The load must have ended.
func (w *world) settle(again int) {
	w.t.Helper()
	ledger, err := readLedger(w.t.Context(), w.pool)
	w.must(err)
	// What does not come is named by the check.
	late := w.seen.reach(len(ledger), patience, w.relay.Done())
	if late == nil {
		end := w.logEnd()
		devstacktest.Wait(w.t, "the slot to reach the end of the log", patience, func() bool { return w.confirmed() >= end })
	}
	// One that has just been started does not hear the signal yet.
	devstacktest.Wait(w.t, "the relay to stream", patience, w.streaming)
	if state := w.relay.End(syscall.SIGTERM); !state.Success() {
		w.t.Errorf("the relay ended with %v", state)
	}
	if w.delivery == exactlyOnce {
		again = 0
	}
	c := checker{again: again}
	c.check(ledger, readAll(w.t, w.kafka, w.topics))
	if late != nil {
		c.problem("%v", late)
	}
	for i, p := range c.problems {
		if i == 20 {
			w.t.Errorf("and %d problems more", len(c.problems)-i)
			break
		}
		w.t.Error(p)
	}
	w.t.Logf("%d events, %d of them again", len(ledger), c.repeats)
}
