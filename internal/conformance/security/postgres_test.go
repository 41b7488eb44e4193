package security

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay"
)

// What PostgreSQL refuses, or the relay of it, is told with what to do, and no
// password: neither in the error nor in any line of the log.
func TestRefusedByPostgresSaysWhatToDo(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	conn := w.database(t, "refused")
	migrate(t, conn)
	for _, user := range []string{"refused", "elsewhere"} {
		execute(t, conn, fmt.Sprintf(`create role %s login replication password '%s'`, user, passwords[tester]))
	}
	base, err := url.Parse(w.dsn(t, conn, "refused"))
	if err != nil {
		t.Fatal(err)
	}
	const wrong = "wrong-secret-99"
	for name, tt := range map[string]struct {
		user, password, host string // base's where empty
		query                []string
		ends                 bool // with Run's error; else it is tried again, and Ready tells
		want                 []string
	}{
		"wrong password":            {password: wrong, ends: true, want: []string{"28P01", "PGPASSFILE"}},
		"unknown role":              {user: "nobody", ends: true, want: []string{"28P01", "alter role"}},
		"no TLS":                    {query: []string{"sslmode", "disable"}, ends: true, want: []string{"pg_hba.conf", "sslmode=verify-full"}},
		"no client certificate":     {user: "certified", ends: true, want: []string{"28000", "sslcert"}},
		"certificate of another":    {query: []string{"sslcert", w.client.CertFile, "sslkey", w.client.KeyFile}, user: relayUser, ends: true, want: []string{"28000", "sslcert"}},
		"wrong authority":           {query: []string{"sslrootcert", w.stranger.File}, want: []string{"unknown authority", "PGSSLROOTCERT"}},
		"no authority":              {query: []string{"sslrootcert", ""}, want: []string{"unknown authority", "PGSSLROOTCERT"}},
		"wrong host name":           {host: "localhost", want: []string{"localhost", "in the server's certificate"}},
		"certificate of a stranger": {query: []string{"sslcert", w.foreign.CertFile, "sslkey", w.foreign.KeyFile}, want: []string{"unknown certificate authority", "sslcert"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, query := *base, base.Query()
			user, password := "refused", passwords[tester]
			if tt.user != "" {
				user = tt.user
			}
			if tt.password != "" {
				password = tt.password
			}
			if tt.host != "" {
				u.Host = tt.host + ":" + base.Port()
			}
			for i := 0; i < len(tt.query); i += 2 {
				query.Set(tt.query[i], tt.query[i+1])
			}
			u.User, u.RawQuery = url.UserPassword(user, password), query.Encode()

			j := &journal{out: t.Output()}
			r, err := relay.New(relay.Config{Postgres: u.String(), Brokers: w.kafka.Brokers, Log: j.logger()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			if tt.ends {
				err = <-done
			} else {
				devstacktest.Wait(t, "the reason", 20*time.Second, func() bool {
					err = r.Ready(ctx)
					return err != nil && !strings.Contains(err.Error(), "yet")
				})
			}
			cancel()
			err = daemon.PostgresFlags{}.Explain(err)
			for _, want := range tt.want {
				if !strings.Contains(fmt.Sprint(err), want) {
					t.Errorf("error %v, want it to say %q", err, want)
				}
			}
			if strings.Contains(fmt.Sprint(err, j.text()), wrong) {
				t.Error("the wrong password is in the error or the log")
			}
			j.holdsNoSecret(t, err)
			if !tt.ends {
				if err := <-done; err != nil {
					t.Errorf("Run = %v, want nil after its context ended", err)
				}
			}
		})
	}
}

// The relay's connections, both of them, take the password and all about TLS
// from libpq's variables.
func TestPostgresOfTheEnvironment(t *testing.T) {
	w := theWorld(t)
	conn := w.database(t, "of_environment")
	migrate(t, conn)
	const user = "of_environment"
	password := passwords[tester]
	execute(t, conn, fmt.Sprintf(`create role %s login replication password '%s'; grant select on outbox to %[1]s`, user, password))
	execute(t, conn, `create publication outbox for table outbox with (publish = 'insert', publish_via_partition_root = true)`)
	plain := kafkaflags.Flags{Brokers: w.kafka.Brokers}
	dsn := fmt.Sprintf("postgres://%s@127.0.0.1:%d/of_environment", user, conn.Config().Port)
	t.Setenv("PGSSLMODE", "verify-full")
	t.Setenv("PGSSLROOTCERT", w.ca.File)
	t.Setenv("PGSSLCERT", w.client.CertFile) // not asked for of this role, and checked all the same
	t.Setenv("PGSSLKEY", w.client.KeyFile)
	for name, variable := range map[string][2]string{
		"PGPASSWORD": {"PGPASSWORD", password},
		"PGPASSFILE": {"PGPASSFILE", secret(t, fmt.Sprintf("127.0.0.1:%d:of_environment:%s:%s", conn.Config().Port, user, password))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(variable[0], variable[1])
			run(t, relay.Config{Postgres: dsn, Source: "of-environment"}, &plain)()
			flags := daemon.PostgresFlags{PostgresFile: secret(t, dsn)}
			got, err := flags.DSN()
			if err != nil || got != dsn {
				t.Fatalf("DSN = %q, %v, want %q", got, err, dsn)
			}
			c, err := pgx.Connect(t.Context(), got)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close(context.Background()) }()
			var ssl bool
			if err := c.QueryRow(t.Context(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&ssl); err != nil || !ssl {
				t.Errorf("TLS %t, %v, want it", ssl, err)
			}
		})
	}
}
