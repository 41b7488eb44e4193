package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions describe a private PostgreSQL.
type PostgresOptions struct {
	// Dir keeps the data and the log. Under root it must be open to the
	// account that PostgreSQL then runs as: not below root's home, nor in a
	// folder from os.MkdirTemp. It must be set.
	Dir string

	// Port to listen on. Defaults to a free one.
	Port int

	// NoFsync gives durability up for speed: what is committed survives a
	// crash of the server, not one of the machine.
	NoFsync bool

	// Settings are further settings, by name; they win over ours.
	Settings map[string]string

	// TLS makes the server offer TLS with a certificate of this authority for
	// 127.0.0.1, and check client certificates against it. Defaults to none.
	TLS *CA

	// HBA is the content of pg_hba.conf. The superuser's DSN needs a line for
	// postgres from 127.0.0.1 with scram-sha-256. Defaults to initdb's.
	HBA string

	// Version is the major version: "14" to "18". The machine's own is used
	// when it has this one, else it is fetched. Defaults to the version of the
	// data in Dir, else the newest the machine has, else "17".
	Version string

	// Progress gets a line for what takes long. Defaults to nobody.
	Progress io.Writer
}

// Postgres is a running private PostgreSQL with wal_level=logical.
type Postgres struct {
	*process

	// DSN connects as the superuser postgres to the database postgres.
	DSN string
}

// StartPostgres starts PostgreSQL in o.Dir, making the cluster on first use
// and clearing what a killed server left there. Root runs it as the account
// postgres, else nobody, as PostgreSQL refuses to run as root.
//
// The programs of the version wanted come from $WALPOST_POSTGRES_BIN, else the
// folders of the distributions, else the PATH; else they are fetched, with mvn
// or npm.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	h, err := openHome(o.Dir)
	if err != nil {
		return nil, startError("PostgreSQL", o.Dir, "", err)
	}
	c := &cluster{home: h, data: h.path("data"), socket: h.path("s"), log: h.path("log/postgres.log")}
	p, err := c.start(ctx, o)
	if err != nil {
		h.release()
		return nil, startError("PostgreSQL", h.dir, c.log, err)
	}
	return p, nil
}

// A cluster is the folder of a PostgreSQL that is being started.
type cluster struct {
	*home
	data, socket, log string

	bin     string
	account *syscall.Credential
}

func (c *cluster) start(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	if err := c.prepare(ctx, o); err != nil {
		return nil, err
	}
	if err := c.initialize(ctx); err != nil {
		return nil, err
	}
	if err := vacant(ctx, c.data); err != nil {
		return nil, err
	}
	c.clearStale()
	if o.Port == 0 {
		var err error
		if o.Port, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	if err := c.secure(&o); err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(c.path("password"))
	if err != nil {
		return nil, err
	}
	// An immediate shutdown when we die: a fast one can wait for a replication
	// client for ever.
	run := c.command("postgres", c.arguments(o)...)
	run.death = syscall.SIGQUIT
	p, err := run.start(c.home)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, func(context.Context) bool { return c.ready(p.PID) }); err != nil {
		return nil, err
	}
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", string(bytes.TrimSpace(secret))),
		Host: loopback(o.Port), Path: "postgres", RawQuery: "sslmode=disable",
	}
	return &Postgres{process: p, DSN: dsn.String()}, nil
}

// prepare finds the programs and opens the folders to the server's account.
func (c *cluster) prepare(ctx context.Context, o PostgresOptions) error {
	version, err := os.ReadFile(filepath.Join(c.data, "PG_VERSION"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	major := strings.TrimSpace(string(version))
	if major != "" && o.Version != "" && major != o.Version {
		return fmt.Errorf("version: the data there is of PostgreSQL %s, not %s", major, o.Version)
	}
	if o.Version == "" {
		o.Version = major
	}
	if c.bin, err = findPostgres(ctx, o.Version, o.Progress); err != nil {
		return err
	}
	if c.account, err = account(); err != nil {
		return err
	}
	if err := errors.Join(reachable(c.account, c.data), reachable(c.account, filepath.Join(c.bin, "postgres"))); err != nil {
		return err
	}
	// The longest path a Unix socket can have is 107 bytes.
	if len(c.socket)+len("/.s.PGSQL.65535.lock") > 107 {
		return errors.New("dir: too long for a Unix socket in it")
	}
	// Whoever can enter the socket's folder is the superuser.
	return errors.Join(os.MkdirAll(c.socket, 0o700), give(c.account, c.socket), give(c.account, c.dir))
}

// initialize makes the cluster on first use, under another name that it loses
// at the end: an initdb that was cut off leaves no half of one.
func (c *cluster) initialize(ctx context.Context) error {
	if exists(c.data) {
		return nil
	}
	partial, password := c.data+".partial", c.path("password")
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	err := os.WriteFile(password, []byte(rand.Text()), 0o600)
	if err := errors.Join(err, give(c.account, password)); err != nil {
		return err
	}
	run := c.command("initdb", "-D", partial, "-U", "postgres", "--pwfile="+password, "-E", "UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync")
	cmd := exec.CommandContext(ctx, run.path, run.args...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), run.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.account}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return os.Rename(partial, c.data)
}

func (c *cluster) command(program string, args ...string) command {
	return command{
		path: filepath.Join(c.bin, program), args: args, env: []string{"LC_ALL=C"},
		dir: c.data, log: c.log, account: c.account,
	}
}

func (c *cluster) arguments(o PostgresOptions) []string {
	settings := map[string]string{
		"listen_addresses":                "127.0.0.1",
		"port":                            strconv.Itoa(o.Port),
		"unix_socket_directories":         c.socket,
		"wal_level":                       "logical",
		"max_connections":                 "200",
		"max_wal_senders":                 "60",
		"max_replication_slots":           "60",
		"max_worker_processes":            "8",
		"shared_buffers":                  "128MB",
		"log_line_prefix":                 "%m [%p] %d ",
		"log_replication_commands":        "off",
		"cluster_name":                    "walpost",
		"max_logical_replication_workers": "2",
	}
	if o.NoFsync {
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
			settings[name] = "off"
		}
	}
	maps.Copy(settings, o.Settings)
	args := []string{"-D", c.data}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// ready reads the state that the server writes in the eighth line of its lock
// file, as pg_ctl does.
func (c *cluster) ready(pid int) bool {
	b, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	lines := strings.Split(string(b), "\n")
	return err == nil && len(lines) > 7 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// clearStale removes the lock files of a killed server. PostgreSQL does that
// itself, but not when the dead server's process id has gone to a process that
// lives. Nobody works in the data folder any more and we hold its home, so the
// files can only be stale.
func (c *cluster) clearStale() {
	_ = os.Remove(filepath.Join(c.data, "postmaster.pid"))
	sockets, _ := filepath.Glob(filepath.Join(c.socket, ".s.PGSQL.*"))
	for _, s := range sockets {
		_ = os.Remove(s)
	}
}

// Stop shuts the server down: a fast shutdown, which ends sessions, and at the
// end of ctx an immediate one. A replication client that does not confirm what
// it is sent holds a fast shutdown up: stop relays first.
func (p *Postgres) Stop(ctx context.Context) error {
	if err := p.stop(ctx, syscall.SIGINT, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	return nil
}

// CreateDatabase makes an empty database and gives its DSN.
func (p *Postgres) CreateDatabase(ctx context.Context, name string) (string, error) {
	return CreateDatabase(ctx, p.DSN, name)
}

// CreateDatabase makes an empty database on the server that dsn, a URL, names,
// and gives the database's DSN. Any number of processes may do so at once.
func CreateDatabase(ctx context.Context, dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// template0, as nobody can be connected to it: template1 fails with 55006
	// while somebody is.
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()+" template template0"); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	u.Path = "/" + name
	return u.String(), nil
}
