package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PgbouncerOptions describe a connection pooler in front of a PostgreSQL.
type PgbouncerOptions struct {
	// Dir keeps the configuration and the log, with a server's password. Under
	// root it must be open to the account that PgBouncer then runs as, as for
	// [PostgresOptions]. It must be set.
	Dir string

	// Postgres is the DSN of the server, a URL with a user and a password. It
	// must be set. The pooler serves every database of it to that user.
	Postgres string

	// Port to listen on. Defaults to a free one.
	Port int

	// PoolSize is how many connections to the server there are at most for
	// each database. Fewer than clients makes them share. Defaults to 2.
	PoolSize int

	// Settings are further settings, by name; they win over ours.
	Settings map[string]string
}

// Pgbouncer is a running PgBouncer that pools by the transaction: between two
// transactions of a client another client may have used its connection to the
// server.
type Pgbouncer struct {
	*process

	// DSN is the server's, by way of the pooler.
	DSN string
}

// StartPgbouncer starts the machine's PgBouncer in front of o.Postgres, which
// it connects to on a client's first query. Root runs it as the account
// postgres, else nobody, as PgBouncer refuses to run as root.
func StartPgbouncer(ctx context.Context, o PgbouncerOptions) (*Pgbouncer, error) {
	h, err := openHome(o.Dir)
	if err != nil {
		return nil, startError("PgBouncer", o.Dir, "", err)
	}
	log := h.path("log/pgbouncer.log")
	p, err := startPgbouncer(ctx, h, log, o)
	if err != nil {
		h.release()
		return nil, startError("PgBouncer", h.dir, log, err)
	}
	return p, nil
}

func startPgbouncer(ctx context.Context, h *home, log string, o PgbouncerOptions) (*Pgbouncer, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		// Debian puts it where only root's PATH looks.
		return nil, &MissingError{
			Programs: "pgbouncer", For: "PgBouncer", Install: "apt-get install pgbouncer (and have /usr/sbin on the PATH)",
		}
	}
	server, err := url.Parse(o.Postgres)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", errors.Unwrap(err)) // the URL has a password
	}
	password, ok := server.User.Password()
	if !ok || server.Port() == "" {
		return nil, errors.New("postgres: must be a URL with user, password, host and port")
	}
	as, err := account()
	if err != nil {
		return nil, err
	}
	run := h.path("run") // its own, so that it is the only one working there
	if err := errors.Join(os.MkdirAll(run, 0o700), give(as, run), reachable(as, run), vacant(ctx, run)); err != nil {
		return nil, err
	}
	if o.Port == 0 {
		if o.Port, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	users, ini := filepath.Join(run, "users.txt"), filepath.Join(run, "pgbouncer.ini")
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	for path, text := range map[string]string{
		users: quote(server.User.Username()) + " " + quote(password) + "\n",
		ini:   o.configuration(server, users),
	} {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), give(as, path)); err != nil {
			return nil, err
		}
	}
	p, err := command{path: program, args: []string{ini}, dir: run, log: log, account: as, death: syscall.SIGKILL}.start(h)
	if err != nil {
		return nil, err
	}
	address := loopback(o.Port)
	if err := p.await(ctx, func(ctx context.Context) bool { return listening(ctx, address) }); err != nil {
		return nil, err
	}
	pooled := *server
	pooled.Host = address
	return &Pgbouncer{process: p, DSN: pooled.String()}, nil
}

// configuration sets what a PgBouncer of 2020 knows already: an unknown
// setting keeps it from starting.
func (o PgbouncerOptions) configuration(server *url.URL, users string) string {
	settings := map[string]string{
		"listen_addr":       "127.0.0.1",
		"listen_port":       strconv.Itoa(o.Port),
		"unix_socket_dir":   "",
		"auth_type":         "scram-sha-256",
		"auth_file":         users,
		"pool_mode":         "transaction",
		"default_pool_size": strconv.Itoa(cmp.Or(o.PoolSize, 2)),
		"max_client_conn":   "200",
		// What pgx and lib/pq set at the start of a connection.
		"ignore_startup_parameters": "extra_float_digits",
	}
	maps.Copy(settings, o.Settings)
	var b strings.Builder
	fmt.Fprintf(&b, "[databases]\n* = host=%s port=%s\n\n[pgbouncer]\n", server.Hostname(), server.Port())
	for name, value := range settings {
		fmt.Fprintf(&b, "%s = %s\n", name, value)
	}
	return b.String()
}

// Stop shuts the pooler down when the transactions under way have ended, and
// at the end of ctx at once.
func (p *Pgbouncer) Stop(ctx context.Context) error {
	if err := p.stop(ctx, syscall.SIGINT, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("stop PgBouncer: %w", err)
	}
	return nil
}
