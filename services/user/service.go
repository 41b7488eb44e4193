// Package user is the user service: people, their log-ins and sessions. It
// writes each change of a user and the event that tells of it in one
// transaction.
package user

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/migrations"
	"github.com/seed-048de892/walpost/outbox/aggregate"
	"github.com/seed-048de892/walpost/services/web"
)

// Config configures a [Service]. Zero means default.
type Config struct {
	// DB is the service's own database, migrated by migrations.User. The
	// caller closes it after Run has returned. Required.
	DB *pgxpool.Pool

	// Log gets what happens. Required.
	Log *slog.Logger

	// Listen is the address that Run serves. Defaults to 127.0.0.1:3001.
	Listen string

	// Registry gets the metrics. Nil means none.
	Registry prometheus.Registerer

	// EmailDomains are the only domains an e-mail address may have. Empty
	// means all.
	EmailDomains []string

	// Argon2 is the cost of hashing a password.
	Argon2 Argon2

	// MaxHashes is how many passwords are hashed at once; more wait. Each
	// takes Argon2.MemoryKiB of memory and a core. Defaults to the number of
	// cores.
	MaxHashes int

	// MaxFailures is how many log-ins under one name may fail in a row before
	// that name is locked out. Guesses under way at the same time are let
	// through, so at most MaxHashes more a replica. Defaults to 5.
	MaxFailures int

	// Lockout is how long a name is locked out, and how long a failure is
	// remembered. Defaults to 15 minutes.
	Lockout time.Duration

	// SessionTTL is how long a session lasts. Other services verify a session
	// by its signature alone, so revoking it reaches them only as it expires.
	// Defaults to an hour.
	SessionTTL time.Duration

	// SigningKey is an Ed25519 private key in PEM (PKCS #8). Empty means one
	// that the service makes at its first start and keeps in its database,
	// shared by its replicas; whoever reads that database can then sign
	// sessions.
	SigningKey []byte

	// Issuer is the "iss" of sessions. Defaults to "user".
	Issuer string

	// IdempotencyTTL is how long the answer to a request with an
	// Idempotency-Key is kept. Defaults to 24 hours.
	IdempotencyTTL time.Duration

	// TrustedProxies are the addresses or networks whose X-Forwarded-For is
	// believed. Empty means none.
	TrustedProxies []string

	// Version stands in the OpenAPI document. Defaults to "dev".
	Version string
}

func (c *Config) check() error {
	var errs []error
	require := func(ok bool, problem string) {
		if !ok {
			errs = append(errs, errors.New(problem))
		}
	}
	require(c.DB != nil, "db: must be set")
	require(c.Log != nil, "log: must be set")
	require(c.MaxHashes >= 0, "max-hashes: must not be negative")
	require(c.MaxFailures >= 0, "login-max-failures: must not be negative")
	require(c.Lockout >= 0, "login-lockout: must not be negative")
	require(c.SessionTTL == 0 || c.SessionTTL >= time.Second, "session-ttl: must be at least 1s")
	require(c.IdempotencyTTL >= 0, "idempotency-ttl: must not be negative")
	require(c.Argon2.MemoryKiB == 0 || c.Argon2.MemoryKiB >= 8*uint32(max(c.Argon2.Threads, 1)),
		"argon2-memory-kib: must be at least 8 for each thread")
	for _, domain := range c.EmailDomains {
		require(domain != "" && !strings.ContainsAny(domain, "@ "), fmt.Sprintf("email-domains: %q is not a domain like example.org", domain))
	}
	return errors.Join(errs...)
}

func (c *Config) fill() {
	def(&c.Listen, "127.0.0.1:3001")
	def(&c.Argon2.MemoryKiB, 19456)
	def(&c.Argon2.Time, 2)
	def(&c.Argon2.Threads, 1)
	def(&c.MaxHashes, runtime.GOMAXPROCS(0))
	def(&c.MaxFailures, 5)
	def(&c.Lockout, 15*time.Minute)
	def(&c.SessionTTL, time.Hour)
	def(&c.Issuer, "user")
	def(&c.IdempotencyTTL, 24*time.Hour)
	def(&c.Version, "dev")
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// A Service is the user service. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	policy policy
	users  *aggregate.Definition[State]
	hasher *hasher
	api    *web.API
	signer atomic.Pointer[signer] // nil until Prepare
}

// New makes a Service. It starts nothing and does not ask the database.
func New(cfg Config) (*Service, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.fill()
	users, err := define()
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, users: users, hasher: newHasher(cfg.Argon2, cfg.MaxHashes)}
	for _, domain := range cfg.EmailDomains {
		s.policy.domains = append(s.policy.domains, strings.ToLower(domain))
	}
	api, err := web.New(web.Config{
		Name: "user", Title: "User service", Version: cfg.Version, Log: cfg.Log, Registry: cfg.Registry,
		Ready: s.Ready, Problem: problem, Authenticate: s.authenticate, TrustedProxies: cfg.TrustedProxies,
	})
	if err != nil {
		return nil, err
	}
	s.api = api
	s.register()
	return s, nil
}

// Handler serves the API. Call Prepare before; until then sessions are
// answered with 503.
func (s *Service) Handler() http.Handler { return s.api }

// Prepare checks that the database is migrated and loads the key that signs
// sessions, or makes it.
func (s *Service) Prepare(ctx context.Context) error {
	if err := migrations.Check(ctx, s.cfg.DB, migrations.User(), "user migrate"); err != nil {
		return err
	}
	signer, err := loadSigner(ctx, s.cfg.DB, s.cfg.Issuer, s.cfg.SigningKey)
	if err != nil {
		return err
	}
	s.signer.Store(signer)
	return nil
}

// Ready says whether the service can do its work: its database answers and
// has all migrations.
func (s *Service) Ready(ctx context.Context) error {
	return migrations.Check(ctx, s.cfg.DB, migrations.User(), "user migrate")
}

// Run prepares the service and serves it at Config.Listen until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Prepare(ctx); err != nil {
		return err
	}
	return daemon.Run(ctx, s.sweep, func(ctx context.Context) error {
		return daemon.Serve(ctx, "api", s.cfg.Listen, s.api, s.cfg.Log)
	})
}

// sweepEvery is how often rows that have expired are deleted. Nothing depends
// on it but disk space: they are not believed any more.
const sweepEvery = 10 * time.Minute

func (s *Service) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.deleteExpired(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "expired rows not deleted; trying again later", slog.Any("error", err))
		}
	}
}

func (s *Service) deleteExpired(ctx context.Context) error {
	for sql, args := range map[string][]any{
		`delete from idempotency_keys where expires_at < now()`:           nil,
		`delete from sessions where expires_at < now()`:                   nil,
		`delete from login_attempts where last_at < now() - $1::interval`: {2 * s.cfg.Lockout},
	} {
		if _, err := s.cfg.DB.Exec(ctx, sql, args...); err != nil {
			return err
		}
	}
	return nil
}

// now is the time in the precision that PostgreSQL keeps, so that a state
// reads the same before and after it is stored.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
