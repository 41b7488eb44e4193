package devstack

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The kinds of server that a [Mongo] can be.
const (
	KindMongod   = "mongod"
	KindSecantus = "secantusdb"
	KindExternal = "external" // of $WALPOST_MONGO_URI, not started by us
)

// MongoOptions describe a private MongoDB.
type MongoOptions struct {
	// Dir keeps the data and the log. It must be set.
	Dir string

	// Port to listen on. Defaults to a free one.
	Port int

	// Progress gets a line for what takes long. Defaults to nobody.
	Progress io.Writer
}

// Mongo is a MongoDB server for us to use.
type Mongo struct {
	// URI is what to give to a driver.
	URI string

	// Kind is [KindMongod], [KindSecantus] or [KindExternal].
	Kind string

	// PID is the server's process id, 0 for an external one.
	PID int

	process *process
	done    chan struct{}
	stop    sync.Once
}

// StartMongo gives the server of $WALPOST_MONGO_URI when that is set, without
// starting anything; else it starts the mongod on the PATH as a replica set of
// one node; else SecantusDB, which is fetched with python3's venv and pip.
//
// SecantusDB is under the GPL, version 2: it is only ever run as a process of
// its own, at the other end of a socket; never link to it, nor ship it.
func StartMongo(ctx context.Context, o MongoOptions) (*Mongo, error) {
	if uri := os.Getenv("WALPOST_MONGO_URI"); uri != "" {
		m := &Mongo{URI: uri, Kind: KindExternal, done: make(chan struct{})}
		if err := ping(ctx, uri); err != nil {
			return nil, fmt.Errorf("use the MongoDB of WALPOST_MONGO_URI: %w", err)
		}
		return m, nil
	}
	h, err := openHome(o.Dir)
	if err != nil {
		return nil, startError("MongoDB", o.Dir, "", err)
	}
	log := h.path("log/mongo.log")
	m, err := startMongo(ctx, h, log, o)
	if err != nil {
		h.release()
		return nil, startError("MongoDB", h.dir, log, err)
	}
	return m, nil
}

func startMongo(ctx context.Context, h *home, log string, o MongoOptions) (*Mongo, error) {
	run := command{dir: h.path("data"), log: log, death: syscall.SIGKILL}
	if err := os.MkdirAll(run.dir, 0o755); err != nil {
		return nil, err
	}
	if err := vacant(ctx, run.dir); err != nil {
		return nil, err
	}
	if o.Port == 0 {
		var err error
		if o.Port, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	m := &Mongo{URI: "mongodb://" + loopback(o.Port) + "/?directConnection=true"}
	ready := func(ctx context.Context) bool { return listening(ctx, loopback(o.Port)) && ping(ctx, m.URI) == nil }
	if mongod, err := exec.LookPath("mongod"); err == nil {
		m.Kind = KindMongod
		run.path, run.args = mongod, []string{
			"--dbpath", run.dir, "--port", strconv.Itoa(o.Port), "--bind_ip", "127.0.0.1", "--replSet", replicaSet,
			"--unixSocketPrefix", h.dir, "--wiredTigerCacheSizeGB", "0.25",
		}
		ready = func(ctx context.Context) bool {
			return listening(ctx, loopback(o.Port)) && primary(ctx, m.URI, loopback(o.Port))
		}
	} else {
		m.Kind = KindSecantus
		venv, err := findSecantus(ctx, o.Progress)
		if err != nil {
			return nil, err
		}
		// An empty configuration of our own, so that none of the user's is read.
		config := h.path("secantusd.toml")
		if err := os.WriteFile(config, nil, 0o644); err != nil {
			return nil, err
		}
		run.path, run.args = filepath.Join(venv, "bin", "python"), []string{
			"-c", "import sys; from secantus.cli import main; sys.exit(main())", "--config", config, "--host", "127.0.0.1", "--port", strconv.Itoa(o.Port),
			"--storage-path", run.dir, "--sync-on-commit", "--cache-size", "256M",
		}
	}
	p, err := run.start(h)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, ready); err != nil {
		return nil, err
	}
	m.process, m.PID, m.done = p, p.PID, p.done
	return m, nil
}

// replicaSet names the set that a mongod becomes.
const replicaSet = "walpost"

func connect(uri string) (*mongo.Client, error) {
	client, err := mongo.Connect(options.Client().SetServerSelectionTimeout(5 * time.Second).ApplyURI(uri))
	if err != nil {
		return nil, fmt.Errorf("connect to MongoDB: %w", err)
	}
	return client, nil
}

func ping(ctx context.Context, uri string) error {
	client, err := connect(uri)
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	return client.Ping(ctx, nil)
}

// primary tells whether the mongod takes writes, and brings it nearer to that:
// a new one becomes a set of one, and one at another port than last time
// learns its new address, since a member that can't find itself in the set's
// configuration never becomes primary.
func primary(ctx context.Context, uri, addr string) bool {
	client, err := connect(uri)
	if err != nil {
		return false
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	admin := client.Database("admin")
	var hello struct {
		IsWritablePrimary bool
		IsReplicaSet      bool `bson:"isreplicaset"`
	}
	if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return false
	}
	if hello.IsWritablePrimary {
		return true
	}
	members := bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: addr}}}
	if hello.IsReplicaSet { // started with --replSet, not initiated yet
		config := bson.D{{Key: "_id", Value: replicaSet}, {Key: "members", Value: members}}
		_ = admin.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
		return false
	}
	var current struct {
		Config struct {
			Version int
			Members []struct{ Host string }
		}
	}
	if err := admin.RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&current); err != nil {
		return false
	}
	if m := current.Config.Members; len(m) != 1 || m[0].Host != addr {
		config := bson.D{
			{Key: "_id", Value: replicaSet}, {Key: "version", Value: current.Config.Version + 1}, {Key: "members", Value: members},
		}
		_ = admin.RunCommand(ctx, bson.D{{Key: "replSetReconfig", Value: config}, {Key: "force", Value: true}}).Err()
	}
	return false
}

// Done is closed when the server has ended, for whatever reason; for an
// external one when Stop or Kill is called.
func (m *Mongo) Done() <-chan struct{} { return m.done }

// Stop shuts the server down cleanly; at the end of ctx it is killed. An
// external one is left alone.
func (m *Mongo) Stop(ctx context.Context) error {
	if m.process == nil {
		m.stop.Do(func() { close(m.done) })
		return nil
	}
	if err := m.process.stop(ctx, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop MongoDB: %w", err)
	}
	return nil
}

// Kill ends the server at once with SIGKILL, as a crash would, and returns
// when it is gone. An external one is left alone.
func (m *Mongo) Kill() error {
	if m.process == nil {
		return m.Stop(context.Background())
	}
	return m.process.Kill()
}
