// Package e2e tests the whole path, from a transaction to the replayed state,
// with the programs as processes and real servers.
package e2e

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/schema"
)

const (
	writers  = 8
	accounts = 40
	events   = 10_000
	kills    = 3 // of each program
)

// TestEveryCommittedEventIsArchivedOnce writes with rollbacks, savepoints and
// transactions of several events on shared accounts, while relay and archive
// are killed three times each in the middle of their work, and compares Kafka
// and the archive with PostgreSQL.
func TestEveryCommittedEventIsArchivedOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real servers")
	}
	dsn, name, brokers := devstacktest.Database(t), devstacktest.Name(t), devstacktest.Kafka(t)
	uri, database := devstacktest.Mongo(t)
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := pool.Exec(t.Context(), up+createAccounts); err != nil {
		t.Fatal(err)
	}
	kafka, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	mongo, err := archive.Connect(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mongo.Disconnect(context.Background()) })
	db := mongo.Database(database)

	bin := devstacktest.Build(t, "cmd/relay", "cmd/archive")
	relay := devstacktest.NewProgram(t, nil,
		filepath.Join(bin, "relay"), "run", "--postgres", dsn, "--brokers", strings.Join(brokers, ","),
		"--source", name, "--positions-topic", "_"+name, "--ops-listen", "127.0.0.1:0",
	)
	archiver := devstacktest.NewProgram(t, nil,
		filepath.Join(bin, "archive"), "run", "--brokers", strings.Join(brokers, ","), "--mongo", uri, "--database", database,
		"--group", name, "--instance", name, "--topics", "^"+name, "--ops-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0",
	)
	relay.Start()
	archiver.Start()
	devstacktest.Wait(t, "the slot to be active", 3*time.Minute, func() bool {
		var active bool
		err := pool.QueryRow(t.Context(), `select exists (select from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
			where s.database = current_database() and r.state in ('catchup', 'streaming'))`).Scan(&active)
		return err == nil && active
	})

	l := load{pool: pool, topics: []string{name + ".even", name + ".odd"}, allowed: make(chan struct{}, events)}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() { l.write(t, w, events/writers) })
	}
	published := func() int64 { return endOffset(t, kafka, l.topics) }
	archived := func() int64 {
		n, err := db.Collection("events").CountDocuments(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	disturb(t, &l, relay, published, archiver, archived)
	writing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	devstacktest.Wait(t, "every event to be archived", 3*time.Minute, func() bool { return archived() >= events })
	// What was killed comes again: read Kafka only when nothing more comes.
	relay.End(syscall.SIGTERM)
	end := published()
	want := committed(t, pool)
	compareKafka(t, brokers, l.topics, end, want)
	compareArchive(t, db, name, want)
	checkStates(t, pool, archive.NewStore(db, nil))
}

// disturb lets the writers write a share of the load for each kill, and kills
// the program when it has done a random part of that share, so that it always
// has work in hand and has always worked since its last kill.
func disturb(t *testing.T, l *load, relay *devstacktest.Program, published func() int64, archiver *devstacktest.Program, archived func() int64) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed of the kills: %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const share = events / (2*kills + 1)
	allow := func(n int) {
		for range n {
			l.allowed <- struct{}{}
		}
	}
	for n := range 2 * kills {
		target, progress := relay, published
		if n%2 == 1 {
			target, progress = archiver, archived
		}
		from := progress()
		allow(share)
		// Where it lags it has more to do than the share, never less.
		until := from + 1 + random.Int64N(share/2)
		devstacktest.Wait(t, "the program to get on", 3*time.Minute, func() bool { return progress() >= until || t.Failed() })
		target.Kill()
		target.Start()
	}
	allow(events - 2*kills*share)
}

// endOffset is how many records the topics hold.
func endOffset(t *testing.T, kafka *kgo.Client, topics []string) (n int64) {
	ends, err := kadm.NewClient(kafka).ListEndOffsets(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += max(0, o.Offset) }) // -1 for a topic that is not made yet
	return n
}
