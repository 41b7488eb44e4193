package e2e

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// A row is what the outbox table holds of an event.
type row struct {
	payload []byte
	account string
	version int64
}

// committed gives the outbox by event id.
func committed(t *testing.T, pool *pgxpool.Pool) map[string]row {
	t.Helper()
	rows, _ := pool.Query(t.Context(), `select id::text, payload, aggregate_id, aggregate_version from outbox`) // ForEachRow gives its error
	all := make(map[string]row)
	var id string
	var r row
	_, err := pgx.ForEachRow(rows, []any{&id, &r.payload, &r.account, &r.version}, func() error {
		r.payload = append([]byte{}, r.payload...)
		all[id] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != events {
		t.Fatalf("%d events were committed, want %d", len(all), events)
	}
	return all
}

// compareKafka reads all n records of the topics: every committed event is
// there and no other, what comes again is the same with the same sequence, and
// the first of each comes in the account's order.
func compareKafka(t *testing.T, brokers, topics []string, n int64, want map[string]row) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sequences, versions := make(map[string]int64), make(map[string]int64)
	for read := int64(0); read < n; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %d records of %d: %v", read, n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			read++
			e, err := cloudevent.Decode(r)
			if err != nil {
				t.Error(err)
				return
			}
			w, ok := want[e.ID]
			if !ok || string(w.payload) != string(e.Data) || w.account != string(r.Key) || w.version != e.AggregateVersion {
				t.Errorf("record %s of %s at version %d is not what was committed", e.ID, r.Key, e.AggregateVersion)
			}
			switch before, again := sequences[e.ID]; {
			case again && before != e.Sequence:
				t.Errorf("event %s came with sequence %d and again with %d", e.ID, before, e.Sequence)
			case !again:
				if versions[w.account]++; versions[w.account] != e.AggregateVersion {
					t.Errorf("account %s: version %d came, want %d", w.account, e.AggregateVersion, versions[w.account])
				}
			}
			sequences[e.ID] = e.Sequence
		})
	}
	if len(sequences) != len(want) {
		t.Errorf("Kafka holds %d events, %d were committed", len(sequences), len(want))
	}
	t.Logf("%d records for %d events", n, len(want))
}

type document struct {
	ID      string `bson:"_id"`
	Source  string `bson:"source"`
	Seq     int64  `bson:"seq"`
	Account string `bson:"aggregateId"`
	Version int64  `bson:"eventVersion"`
	Payload []byte `bson:"payload"`
}

// compareArchive finds every committed event once and no other, nothing in
// quarantine, the sequence dense, and the accounts' versions in its order.
func compareArchive(t *testing.T, db *mongo.Database, source string, want map[string]row) {
	t.Helper()
	cursor, err := db.Collection("events").Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var all []document
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(want) {
		t.Fatalf("%d events are archived, %d were committed", len(all), len(want))
	}
	bySequence := make([]*document, len(all))
	for i := range all {
		d := &all[i]
		if w, ok := want[d.ID]; !ok || string(w.payload) != string(d.Payload) || d.Source != source {
			t.Errorf("document %s of %s is not what was committed", d.ID, d.Source)
		}
		if d.Seq < 1 || d.Seq > int64(len(all)) || bySequence[d.Seq-1] != nil {
			t.Fatalf("event %s has sequence %d: a hole or a repeat among %d", d.ID, d.Seq, len(all))
		}
		bySequence[d.Seq-1] = d
	}
	versions := make(map[string]int64)
	for _, d := range bySequence {
		if versions[d.Account]++; versions[d.Account] != d.Version {
			t.Errorf("sequence %d: account %s is at version %d, want %d", d.Seq, d.Account, d.Version, versions[d.Account])
		}
	}
	if n, err := db.Collection("quarantine").CountDocuments(t.Context(), bson.D{}); n != 0 || err != nil {
		t.Errorf("%d records are in quarantine, %v", n, err)
	}
}

// checkStates finds the state of each account, replayed, equal to its row.
func checkStates(t *testing.T, pool *pgxpool.Pool, store *archive.Store) {
	t.Helper()
	rows, _ := pool.Query(t.Context(), readAccounts+` where version > 0`) // CollectRows gives its error
	want, err := pgx.CollectRows(rows, scanAccount)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		replayed, err := store.State(t.Context(), "account", w.ID, archive.Until{})
		if err != nil {
			t.Fatal(err)
		}
		var got account
		if err := json.Unmarshal(replayed.State, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(w, got); diff != "" || replayed.Version != w.Version {
			t.Errorf("replay of %s, at version %d, -row +replayed:\n%s", w.ID, replayed.Version, diff)
		}
	}
}
