package devstacktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/seed-048de892/walpost/internal/devstack"
)

// cleanupLimit bounds what a cleanup waits for a server.
const cleanupLimit = 30 * time.Second

// Database makes an empty database of the test's own and gives the DSN of its
// superuser. At the end of the test its replication slots are dropped and then
// the database, whoever is still connected.
func Database(t testing.TB) string {
	t.Helper()
	return databaseOn(t, server(t, "WALPOST_TEST_POSTGRES", postgres))
}

func databaseOn(t testing.TB, admin string) string {
	t.Helper()
	name := Name(t)
	dsn, err := devstack.CreateDatabase(t.Context(), admin, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := dropDatabase(ctx, admin, name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return dsn
}

// dropDatabase drops the slots first: a database with one can't be dropped.
func dropDatabase(ctx context.Context, admin, name string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		slot, pid, err := firstSlot(ctx, conn, name)
		if errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if err != nil {
			return fmt.Errorf("list slots: %w", err)
		}
		if err := dropSlot(ctx, conn, slot, pid); err != nil {
			return fmt.Errorf("drop slot %s: %w", slot, err)
		}
	}
	_, err = conn.Exec(ctx, "drop database if exists "+pgx.Identifier{name}.Sanitize()+" with (force)")
	return err
}

func firstSlot(ctx context.Context, conn *pgx.Conn, database string) (slot string, pid *int32, err error) {
	err = conn.QueryRow(ctx, "select slot_name::text, active_pid from pg_replication_slots where database = $1 limit 1",
		database).Scan(&slot, &pid)
	return slot, pid, err
}

// dropSlot ends whoever uses the slot and drops it. A slot that is in use
// again, or already gone, is left to the next round of the caller.
func dropSlot(ctx context.Context, conn *pgx.Conn, slot string, pid *int32) error {
	if pid != nil {
		// With the second argument it waits until the process is gone.
		if _, err := conn.Exec(ctx, "select pg_terminate_backend($1, 5000)", *pid); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, "select pg_drop_replication_slot($1)", slot)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (e.Code == "55006" || e.Code == "42704") {
		return nil
	}
	return err
}

// Mongo gives the URI of a MongoDB server and the name of a database of the
// test's own, which is dropped at the end of the test.
func Mongo(t testing.TB) (uri, database string) {
	t.Helper()
	uri, database = server(t, "WALPOST_TEST_MONGO", mongodb), Name(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		client, err := mongo.Connect(options.Client().ApplyURI(uri))
		if err == nil {
			err = errors.Join(client.Database(database).Drop(ctx), client.Disconnect(ctx))
		}
		if err != nil {
			// It is nobody's promise, and ends with the server: a slow machine
			// leaves it behind.
			t.Logf("drop MongoDB database %s: %v", database, err)
		}
	})
	return uri, database
}
