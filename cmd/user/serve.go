package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/migrations"
	"github.com/seed-048de892/walpost/services/user"
)

type database struct {
	Postgres string `required:"" placeholder:"DSN" env:"USER_POSTGRES" help:"The service's own database, like postgres://user@host/userdb. pool_max_conns in it bounds the connections."`
}

type serve struct {
	Config kong.ConfigFlag `help:"YAML file with values for these flags."`
	database
	Listen           string        `default:"127.0.0.1:3001" env:"USER_LISTEN" help:"Address of the API."`
	OpsListen        string        `default:"127.0.0.1:9403" env:"USER_OPS_LISTEN" help:"Address of health, readiness, metrics and profiles."`
	EmailDomains     []string      `env:"USER_EMAIL_DOMAINS" help:"The only domains an e-mail address may have; all where none is given."`
	SigningKeyFile   string        `type:"existingfile" env:"USER_SIGNING_KEY_FILE" help:"Ed25519 private key (PEM, PKCS #8) that signs sessions. Without it one is made at the first start and kept in the database."`
	Issuer           string        `default:"user" env:"USER_ISSUER" help:"Issuer of sessions."`
	SessionTTL       time.Duration `name:"session-ttl" default:"1h" env:"USER_SESSION_TTL" help:"How long a session lasts."`
	LoginMaxFailures int           `default:"5" env:"USER_LOGIN_MAX_FAILURES" help:"Failed log-ins in a row that lock a name out."`
	LoginLockout     time.Duration `default:"15m" env:"USER_LOGIN_LOCKOUT" help:"How long a name is locked out."`
	IdempotencyTTL   time.Duration `name:"idempotency-ttl" default:"24h" env:"USER_IDEMPOTENCY_TTL" help:"How long the answer to an Idempotency-Key is kept."`
	Argon2MemoryKiB  uint32        `name:"argon2-memory-kib" default:"19456" env:"USER_ARGON2_MEMORY_KIB" help:"Memory of hashing one password."`
	Argon2Time       uint32        `name:"argon2-time" default:"2" env:"USER_ARGON2_TIME" help:"Passes of hashing one password."`
	Argon2Threads    uint8         `name:"argon2-threads" default:"1" env:"USER_ARGON2_THREADS" help:"Threads of hashing one password."`
	MaxHashes        int           `default:"0" env:"USER_MAX_HASHES" help:"Passwords hashed at once; 0 means one for each core."`
	TrustedProxies   []string      `env:"USER_TRUSTED_PROXIES" help:"Addresses or networks whose X-Forwarded-For is believed; none by default."`

	daemon.LogFlags `envprefix:"USER_"`
}

// Run serves until ctx ends.
func (c *serve) Run(ctx context.Context, out daemon.Output) error {
	log := c.Logger(out.Stderr)
	var key []byte
	if c.SigningKeyFile != "" {
		var err error
		if key, err = os.ReadFile(c.SigningKeyFile); err != nil {
			return fmt.Errorf("signing-key-file: %w", err)
		}
	}
	pool, err := pgxpool.New(ctx, c.Postgres)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	defer pool.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	service, err := user.New(user.Config{ //nolint:contextcheck // New starts nothing
		DB: pool, Log: log, Listen: c.Listen, Registry: registry, Version: daemon.Version(),
		EmailDomains: c.EmailDomains, TrustedProxies: c.TrustedProxies,
		Argon2: user.Argon2{MemoryKiB: c.Argon2MemoryKiB, Time: c.Argon2Time, Threads: c.Argon2Threads}, MaxHashes: c.MaxHashes,
		MaxFailures: c.LoginMaxFailures, Lockout: c.LoginLockout,
		SessionTTL: c.SessionTTL, SigningKey: key, Issuer: c.Issuer, IdempotencyTTL: c.IdempotencyTTL,
	})
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	ops := &daemon.Ops{Listen: c.OpsListen, Registry: registry, Ready: service.Ready, Log: log}
	return daemon.Run(ctx, service.Run, ops.Run)
}

type migrate struct {
	database
	daemon.LogFlags `envprefix:"USER_"`
}

// Run applies the migrations that the database lacks.
func (c *migrate) Run(ctx context.Context, out daemon.Output) error {
	return migrations.Up(ctx, c.Postgres, migrations.User(), c.Logger(out.Stderr))
}
