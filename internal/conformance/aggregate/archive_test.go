package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/aggregate"
	"github.com/seed-048de892/walpost/relay"
)

// What is saved here and archived by way of Kafka replays to the row, in every
// mode, from the first event and from a snapshot.
func TestTheArchiveReplaysToTheRow(t *testing.T) {
	t.Parallel()
	w, name := newWorld(t), devstacktest.Name(t)
	store := startPath(t, w, name)
	for _, mode := range modes {
		def, id := defineIn(t, outbox.Writer{Mode: mode}, name), mode.String()
		root := def.New(id)
		var snapshot aggregate.Snapshot
		for round := range 5 {
			if err := errors.Join(
				aggregate.Record(root, opened{Owner: fmt.Sprintf("%s %d", id, round)}),
				aggregate.Record(root, deposited{Cents: int64(round)}),
			); err != nil {
				t.Fatal(err)
			}
			if err := ways["pool"](t.Context(), w.db, root); err != nil {
				t.Fatal(err)
			}
			if round == 2 {
				var err error
				if snapshot, err = root.Snapshot(); err != nil {
					t.Fatal(err)
				}
			}
		}
		row := w.load(t, def, id)
		devstacktest.Wait(t, "all events to be archived", time.Minute, func() bool {
			page, err := store.Events(t.Context(), "account", id, row.Version(), 0, "")
			return err == nil && len(page.Events) == 1
		})
		whole := def.New(id)
		rest, err := def.Restore(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		for from, replayed := range map[string]*aggregate.Root[account]{"the first event": whole, "the snapshot": rest} {
			if err := replayed.Replay(archived(t.Context(), store, id, replayed.Version()+1)); err != nil {
				t.Errorf("%v, from %s: %v", mode, from, err)
			}
			if diff := cmp.Diff(row.State(), replayed.State()); diff != "" || replayed.Version() != row.Version() || row.Version() != 10 {
				t.Errorf("%v, from %s: version %d, the row's is %d; -row +replayed:\n%s", mode, from, replayed.Version(), row.Version(), diff)
			}
		}
	}
}

// archived gives an account's events of the archive, page by page.
func archived(ctx context.Context, store *archive.Store, id string, from int64) iter.Seq2[aggregate.Past, error] {
	return func(yield func(aggregate.Past, error) bool) {
		for after := ""; ; {
			page, err := store.Events(ctx, "account", id, from, 3, after)
			if err != nil {
				yield(aggregate.Past{}, err)
				return
			}
			for _, e := range page.Events {
				past := aggregate.Past{Version: e.Version, Type: e.Type, Payload: e.Payload}
				for _, h := range e.Headers {
					if h.Name == outbox.HeaderSchemaVersion {
						past.SchemaVersion = h.Value
					}
				}
				if !yield(past, nil) {
					return
				}
			}
			if after = page.Next; after == "" {
				return
			}
		}
	}
}

// startPath starts a relay and an archive for w, whose topics begin with name.
func startPath(t *testing.T, w *world, name string) *archive.Store {
	t.Helper()
	brokers := devstacktest.Kafka(t)
	uri, database := devstacktest.Mongo(t)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := relay.New(relay.Config{Postgres: w.dsn, Brokers: brokers, Source: name, PositionsTopic: "_" + name, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.New(archive.Config{
		Brokers: brokers, MongoURI: uri, Database: database, Group: name, Topics: "^" + name, TopicsEvery: 100 * time.Millisecond, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := archive.Connect(uri)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running errgroup.Group
	running.Go(func() error { return r.Run(ctx) })
	running.Go(func() error { return a.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(running.Wait(), client.Disconnect(context.Background())); err != nil {
			t.Error(err)
		}
	})
	devstacktest.Wait(t, "the relay to stream", time.Minute, func() bool { return r.Ready(t.Context()) == nil })
	return archive.NewStore(client.Database(database), nil)
}
