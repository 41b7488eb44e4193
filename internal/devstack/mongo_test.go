package devstack_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

func TestMongoKeepsDocumentsOverKillAndStop(t *testing.T) {
	skipShort(t)
	t.Setenv("WALPOST_MONGO_URI", "")
	dir := devstacktest.Dir(t)
	m := startMongo(t, dir)
	insert(t, m.URI, "one")
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, m.PID)
	m = startMongo(t, dir)
	insert(t, m.URI, "two")
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, m.PID)
	m = startMongo(t, dir)
	c := connectMongo(t, m.URI).Database("test").Collection("c")
	if n, err := c.CountDocuments(t.Context(), bson.D{}); err != nil || n != 2 {
		t.Errorf("documents = %d, %v, want 2", n, err)
	}
}

func TestMongoOfTheEnvironmentIsUsedAndLeftAlone(t *testing.T) {
	skipShort(t)
	t.Setenv("WALPOST_MONGO_URI", "")
	own := startMongo(t, devstacktest.Dir(t))
	t.Setenv("WALPOST_MONGO_URI", own.URI)
	unused := t.TempDir() + "/unused"
	m, err := devstack.StartMongo(t.Context(), devstack.MongoOptions{Dir: unused})
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != devstack.KindExternal || m.URI != own.URI {
		t.Errorf("kind %s at %s, want %s at %s", m.Kind, m.URI, devstack.KindExternal, own.URI)
	}
	for range 2 {
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-m.Done()
	if err := connectMongo(t, own.URI).Ping(t.Context(), nil); err != nil {
		t.Errorf("the external server is gone: %v", err)
	}
	if _, err := os.Stat(unused); !os.IsNotExist(err) {
		t.Errorf("the folder was made: %v", err)
	}
	t.Setenv("WALPOST_MONGO_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300")
	if _, err := devstack.StartMongo(t.Context(), devstack.MongoOptions{}); err == nil || !strings.Contains(err.Error(), "WALPOST_MONGO_URI") {
		t.Errorf("nobody answers there: %v, want an error that names WALPOST_MONGO_URI", err)
	}
}

// A mongod is not among what can be fetched, so a script stands in for it: it
// checks the arguments and runs the other server.
func TestMongodOnThePathIsPreferred(t *testing.T) {
	skipShort(t)
	t.Setenv("WALPOST_MONGO_URI", "")
	startMongo(t, devstacktest.Dir(t)) // fetches SecantusDB if need be
	cache, err := devstack.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(filepath.Join(cache, "secantusdb-*", "bin", "python"))
	if len(found) != 1 {
		t.Skipf("a mongod is installed here, which the other tests use; SecantusDB: %q", found)
	}
	bin := t.TempDir()
	script := `#!/bin/sh
[ "$1 $3 $5 $6 $7 $8" = "--dbpath --port --bind_ip 127.0.0.1 --replSet walpost" ] || { echo "unexpected: $*"; exit 1; }
exec ` + found[0] + ` -c "import sys; from secantus.cli import main; sys.exit(main())" --host 127.0.0.1 --port "$4" --storage-path "$2"
`
	if err := os.WriteFile(filepath.Join(bin, "mongod"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	m := startMongo(t, devstacktest.Dir(t))
	if m.Kind != devstack.KindMongod {
		t.Errorf("kind = %s, want %s", m.Kind, devstack.KindMongod)
	}
	insert(t, m.URI, "one")
}

func startMongo(t *testing.T, dir string) *devstack.Mongo {
	t.Helper()
	begun := time.Now()
	m, err := devstack.StartMongo(t.Context(), devstack.MongoOptions{Dir: dir, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start of %s took %v", m.Kind, time.Since(begun))
	t.Cleanup(func() {
		if err := m.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		gone(t, m.PID)
	})
	return m
}

func connectMongo(t *testing.T, uri string) *mongo.Client {
	t.Helper()
	c, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c
}

func insert(t *testing.T, uri, id string) {
	t.Helper()
	c := connectMongo(t, uri)
	if _, err := c.Database("test").Collection("c").InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}}); err != nil {
		t.Fatal(err)
	}
	// Before the server is killed: afterwards it waits for the server.
	if err := c.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
}
