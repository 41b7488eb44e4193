package demo

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/archive/api"
	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/services/user"
)

// A stack is the three programs, configured for the servers, and what is
// needed to look at their work.
type stack struct {
	servers *servers
	at      addresses

	pool    *pgxpool.Pool
	mongo   *mongo.Client
	events  *mongo.Collection
	acks    *acks
	metrics *prometheus.Registry // of the user service, for its ops address
	logs    [3]*slog.Logger

	user    *user.Service
	relay   *relay.Relay
	archive *archive.Archive

	relayMetrics, archiveMetrics *prometheus.Registry

	began, serversReady, partsReady time.Time

	closers []func() // in the order of opening
}

// addresses are host:port of the programs.
type addresses struct {
	user, userOps, relayOps, archive, archiveOps string
}

// newStack makes the programs. It starts none of them; call close at the end.
func newStack(ctx context.Context, cfg Config, servers *servers) (_ *stack, err error) {
	s := &stack{
		servers: servers, acks: new(acks),
		metrics: prometheus.NewRegistry(), relayMetrics: prometheus.NewRegistry(), archiveMetrics: prometheus.NewRegistry(),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.at, err = freeAddresses(ctx); err != nil {
		return nil, err
	}
	for i, name := range []string{"user", "relay", "archive"} {
		log, closeLog, err := openLog(servers.dir, name)
		if err != nil {
			return nil, err
		}
		s.logs[i] = log
		s.closers = append(s.closers, func() { _ = closeLog() }) // what is lost then is a line of a log
	}
	if s.pool, err = pgxpool.New(ctx, servers.dsn); err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	s.closers = append(s.closers, s.pool.Close)
	if s.mongo, err = archive.Connect(servers.mongo.URI); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = s.mongo.Disconnect(ctx) // it only tells that connections were still in use
	})
	return s, s.configure(cfg) //nolint:contextcheck // the constructors start nothing
}

func (s *stack) configure(cfg Config) (err error) {
	userConfig := user.Config{
		DB: s.pool, Log: s.logs[0], Listen: s.at.user, Registry: s.metrics,
		Argon2: user.Argon2{MemoryKiB: 64, Time: 1}, // a demo's passwords protect nothing
	}
	relayConfig := relay.Config{
		Postgres: s.servers.dsn, Brokers: s.servers.kafka.Brokers,
		Kafka: []kgo.Opt{kgo.WithHooks(s.acks)}, Log: s.logs[1], Metrics: s.relayMetrics,
	}
	archiveConfig := archive.Config{
		Brokers: s.servers.kafka.Brokers, MongoURI: s.servers.mongo.URI,
		TopicsEvery: 200 * time.Millisecond, // all topics are new at first
		Log:         s.logs[2], Registerer: s.archiveMetrics,
	}
	apply(cfg.User, &userConfig)
	apply(cfg.Relay, &relayConfig)
	apply(cfg.Archive, &archiveConfig)
	if s.user, err = user.New(userConfig); err != nil {
		return fmt.Errorf("user service: %w", err)
	}
	if s.relay, err = relay.New(relayConfig); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if s.archive, err = archive.New(archiveConfig); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	database := archiveConfig.Database
	if database == "" {
		database = archive.DefaultDatabase
	}
	s.events = s.mongo.Database(database).Collection("events")
	return nil
}

func apply[T any](change func(*T), config *T) {
	if change != nil {
		change(config)
	}
}

// parts gives what to run: each program with its addresses, named in errors.
func (s *stack) parts() []func(context.Context) error {
	store := archive.NewStore(s.events.Database(), nil)
	read := func(ctx context.Context) error {
		return daemon.Serve(ctx, "archive", s.at.archive, api.Handler(store, s.logs[2]), s.logs[2])
	}
	ops := func(address string, registry *prometheus.Registry, ready func(context.Context) error, log *slog.Logger) func(context.Context) error {
		return (&daemon.Ops{Listen: address, Registry: registry, Ready: ready, Log: log}).Run
	}
	return []func(context.Context) error{
		named("user service", s.user.Run, ops(s.at.userOps, s.metrics, s.user.Ready, s.logs[0])),
		named("relay", s.relay.Run, ops(s.at.relayOps, s.relayMetrics, s.relay.Ready, s.logs[1])),
		named("archive", s.archive.Run, read, ops(s.at.archiveOps, s.archiveMetrics, s.archive.Ready, s.logs[2])),
	}
}

// named runs parts and puts name before their error.
func named(name string, parts ...func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := daemon.Run(ctx, parts...); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
}

// close lets go of what newStack opened, the last first.
func (s *stack) close() {
	for _, v := range slices.Backward(s.closers) {
		v()
	}
}
