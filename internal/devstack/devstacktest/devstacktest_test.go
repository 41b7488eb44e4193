package devstacktest_test

import (
	"context"
	"regexp"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

func TestName(t *testing.T) {
	t.Run("with Spaces & Ünicode, and so long that it must be cut", func(t *testing.T) {
		a, b := devstacktest.Name(t), devstacktest.Name(t)
		if a == b {
			t.Errorf("two names are the same: %s", a)
		}
		if want := regexp.MustCompile(`^[a-z][a-z0-9_]{1,39}$`); !want.MatchString(a) {
			t.Errorf("Name = %q, want %s", a, want)
		}
	})
}

func TestDatabaseIsFreshAndDropped(t *testing.T) {
	var dsn, slot string
	t.Run("use", func(t *testing.T) {
		dsn, slot = devstacktest.Database(t), devstacktest.Name(t)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		// Left open and with a slot: the cleanup must cope with both.
		var level string
		if err := conn.QueryRow(t.Context(), "show wal_level").Scan(&level); err != nil || level != "logical" {
			t.Errorf("wal_level = %q, %v, want logical", level, err)
		}
		if _, err := conn.Exec(t.Context(), "select pg_create_logical_replication_slot($1, 'pgoutput')", slot); err != nil {
			t.Fatal(err)
		}
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the database is still there after the test")
	}
	conn, err := pgx.Connect(t.Context(), devstacktest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var slots int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_replication_slots where slot_name = $1", slot).Scan(&slots); err != nil || slots != 0 {
		t.Errorf("%d slots left, %v", slots, err)
	}
}

func TestDatabasesAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { devstacktest.Database(t) })
	}
	wg.Wait()
}

func TestDatabaseOfEveryVersion(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			dsn := devstacktest.DatabaseOf(t, version)
			for _, dsn := range []string{dsn, devstacktest.Pgbouncer(t, dsn)} {
				conn, err := pgx.Connect(t.Context(), dsn+"&default_query_exec_mode=exec")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close(context.Background()) }()
				var got, database string
				err = conn.QueryRow(t.Context(), "select (current_setting('server_version_num')::int / 10000)::text, current_database()::text").Scan(&got, &database)
				if err != nil || got != version || database != conn.Config().Database {
					t.Errorf("version %s, database %s, %v, want %s and %s", got, database, err, version, conn.Config().Database)
				}
			}
		})
	}
}

func TestKafka(t *testing.T) {
	client, err := kgo.NewClient(kgo.SeedBrokers(devstacktest.Kafka(t)...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMongo(t *testing.T) {
	var uri, database string
	t.Run("use", func(t *testing.T) {
		uri, database = devstacktest.Mongo(t)
		if _, err := client(t, uri).Database(database).Collection("c").InsertOne(t.Context(), bson.D{{Key: "a", Value: 1}}); err != nil {
			t.Fatal(err)
		}
	})
	names, err := client(t, uri).ListDatabaseNames(t.Context(), bson.D{{Key: "name", Value: database}})
	if err != nil || len(names) != 0 {
		t.Errorf("databases after the test: %v, %v, want none", names, err)
	}
}

func client(t *testing.T, uri string) *mongo.Client {
	t.Helper()
	c, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c
}
