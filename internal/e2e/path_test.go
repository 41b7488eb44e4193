// Package e2e tests the whole path, from a transaction to the replayed state,
// with the programs as processes and real servers.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
)

const (
	writers  = 8
	accounts = 5 // of each writer
	events   = 10_000
	kills    = 3 // of each program
)

// TestEveryCommittedEventIsArchivedOnce writes with rollbacks, savepoints and
// transactions of several events, while relay and archive are killed three
// times each, and compares the archive with PostgreSQL.
func TestEveryCommittedEventIsArchivedOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real servers")
	}
	dsn, name := devstacktest.Database(t), devstacktest.Name(t)
	brokers := strings.Join(devstacktest.Kafka(t), ",")
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
	if _, err := pool.Exec(t.Context(), up+`; create table accounts (id text primary key, version bigint not null, balance bigint not null);`); err != nil {
		t.Fatal(err)
	}

	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/relay", "../../cmd/archive").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	relay := &program{t: t, args: []string{
		filepath.Join(bin, "relay"), "run", "--postgres", dsn, "--brokers", brokers,
		"--source", name, "--positions-topic", "_" + name, "--ops-listen", "127.0.0.1:0",
	}}
	archiver := &program{t: t, args: []string{
		filepath.Join(bin, "archive"), "run", "--brokers", brokers, "--mongo", uri,
		"--database", database, "--group", name, "--topics", "^" + name, "--instance", name, "--ops-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0",
	}}
	relay.start()
	archiver.start()
	t.Cleanup(func() { relay.kill(); archiver.kill() })
	wait(t, "the slot to be active", func() bool {
		var active bool
		err := pool.QueryRow(t.Context(), `select coalesce(bool_or(active), false) from pg_replication_slots where database = current_database()`).Scan(&active)
		return err == nil && active
	})

	load := load{pool: pool, topic: name + ".account", allowed: make(chan struct{}, events)}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() { load.write(t, w) })
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	// Each kill has a share of the load of its own, and comes at a random
	// moment of it; what follows is written while the program starts again.
	const share = events / (2*kills + 1)
	for n := range 2*kills + 1 {
		for range share {
			load.allowed <- struct{}{}
		}
		if n == 2*kills {
			break
		}
		at := int64(n*share + random.IntN(share-writers*4))
		wait(t, "the writers to go on", func() bool { return load.committed.Load() >= at || t.Failed() })
		p := []*program{relay, archiver}[n%2]
		p.kill()
		p.start()
	}
	for range events % (2*kills + 1) {
		load.allowed <- struct{}{}
	}
	writing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	compare(t, pool, uri, database, name)
}

// A load is what the writers do together, as far as they are allowed to.
type load struct {
	pool      *pgxpool.Pool
	topic     string
	allowed   chan struct{} // one for each event
	committed atomic.Int64  // events
}

// write makes a writer's share of the events, on accounts of its own.
func (l *load) write(t *testing.T, w int) {
	pool, topic := l.pool, l.topic
	random := rand.New(rand.NewPCG(uint64(w), 7))
	versions := make(map[string]int64)
	balances := make(map[string]int64)
	errAbort := errors.New("rolled back")
	for done := 0; done < events/writers; {
		id := fmt.Sprintf("w%d-a%d", w, random.IntN(accounts))
		count := min(1+random.IntN(4), events/writers-done)
		abort := random.IntN(5) == 0
		for range count {
			if abort {
				break
			}
			select {
			case <-l.allowed:
			case <-t.Context().Done():
				return
			}
		}
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if random.IntN(4) == 0 { // an event in a savepoint that is rolled back
				_ = pgx.BeginFunc(t.Context(), tx, func(sp pgx.Tx) error {
					if err := outbox.Write(t.Context(), sp, account(topic, id, versions[id]+1, -999)); err != nil {
						return err
					}
					return errAbort
				})
			}
			var batch pgx.Batch
			var all []outbox.Event
			for i := range int64(count) {
				all = append(all, account(topic, id, versions[id]+1+i, balances[id]+1+i))
			}
			batch.Queue(`insert into accounts values ($1, $2, $3) on conflict (id) do update set version = $2, balance = $3`,
				id, versions[id]+int64(count), balances[id]+int64(count))
			if err := outbox.Queue(&batch, all...); err != nil {
				return err
			}
			if err := tx.SendBatch(t.Context(), &batch).Close(); err != nil {
				return err
			}
			if abort {
				return errAbort
			}
			return nil
		})
		if abort {
			if !errors.Is(err, errAbort) {
				t.Error(err)
				return
			}
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		versions[id] += int64(count)
		balances[id] += int64(count)
		done += count
		l.committed.Add(int64(count))
	}
}

func account(topic, id string, version, balance int64) outbox.Event {
	return outbox.Event{
		Topic: topic, AggregateType: "account", AggregateID: id, AggregateVersion: version, Type: "BalanceChanged",
		Payload: fmt.Appendf(nil, `{"id":%q,"version":%d,"balance":%d}`, id, version, balance),
	}
}

// compare holds the archive against PostgreSQL.
func compare(t *testing.T, pool *pgxpool.Pool, uri, database, source string) {
	rows, err := pool.Query(t.Context(), `select id::text, payload from outbox`)
	if err != nil {
		t.Fatal(err)
	}
	payloads := make(map[string][]byte)
	var id string
	var payload []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &payload}, func() error { payloads[id] = append([]byte{}, payload...); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(payloads) != events {
		t.Fatalf("%d events were committed, want %d", len(payloads), events)
	}
	client, err := archive.Connect(uri)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.Background()) }()
	db := client.Database(database)
	wait(t, "every event to be archived", func() bool {
		n, err := db.Collection("events").CountDocuments(t.Context(), bson.D{})
		return err == nil && n >= events
	})
	for _, d := range documents(t, db) {
		want, ok := payloads[d.ID]
		switch {
		case !ok:
			t.Errorf("event %s is archived twice, or was rolled back", d.ID)
		case string(want) != string(d.Payload) || d.Source != source:
			t.Errorf("event %s of %s holds %s, want %s", d.ID, d.Source, d.Payload, want)
		}
		delete(payloads, d.ID)
	}
	for id := range payloads {
		t.Errorf("event %s is lost", id)
	}
	if n, err := db.Collection("quarantine").CountDocuments(t.Context(), bson.D{}); n != 0 || err != nil {
		t.Errorf("%d records in quarantine, %v", n, err)
		var first bson.Raw
		if err := db.Collection("quarantine").FindOne(t.Context(), bson.D{}).Decode(&first); err == nil {
			t.Errorf("the first of them: %v", first)
		}
	}
	checkOrder(t, documents(t, db))
	checkStates(t, pool, archive.NewStore(db, nil))
}

type document struct {
	ID      string `bson:"_id"`
	Source  string `bson:"source"`
	Seq     int64  `bson:"seq"`
	Account string `bson:"aggregateId"`
	Version int64  `bson:"eventVersion"`
	Payload []byte `bson:"payload"`
}

func documents(t *testing.T, db *mongo.Database) (all []document) {
	cursor, err := db.Collection("events").Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// checkOrder finds the sequence dense, and in it every account's versions in
// order.
func checkOrder(t *testing.T, all []document) {
	bySequence := make([]document, len(all)+1)
	for _, d := range all {
		if d.Seq < 1 || d.Seq > int64(len(all)) || bySequence[d.Seq].ID != "" {
			t.Errorf("event %s has sequence %d, a hole or a repeat among %d", d.ID, d.Seq, len(all))
			continue
		}
		bySequence[d.Seq] = d
	}
	versions := make(map[string]int64)
	for _, d := range bySequence[1:] {
		if versions[d.Account]++; versions[d.Account] != d.Version {
			t.Errorf("sequence %d: account %s is at version %d, want %d", d.Seq, d.Account, d.Version, versions[d.Account])
		}
	}
}

// checkStates finds the state of each account, replayed, equal to its row.
func checkStates(t *testing.T, pool *pgxpool.Pool, store *archive.Store) {
	rows, err := pool.Query(t.Context(), `select id, version, balance from accounts`)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		ID      string `json:"id"`
		Version int64  `json:"version"`
		Balance int64  `json:"balance"`
	}
	want, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		replayed, err := store.State(t.Context(), "account", w.ID, archive.Until{})
		if err != nil {
			t.Fatal(err)
		}
		var got row
		if err := json.Unmarshal(replayed.State, &got); err != nil || got != w || replayed.Version != w.Version {
			t.Errorf("replay of %s gives %s at version %d, %v, the row is %+v", w.ID, replayed.State, replayed.Version, err, w)
		}
	}
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 3 minutes for %s", what)
		}
	}
}
