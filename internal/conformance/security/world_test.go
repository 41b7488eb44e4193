package security

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack"
)

// A world is one Kafka and one PostgreSQL, both with TLS, passwords and access
// control, for all tests of the process.
type world struct {
	kafka    *devstack.Kafka
	postgres *devstack.Postgres
	dir      string
	remove   func() error

	ca       *devstack.CA     // of both servers
	client   devstack.KeyPair // certified's
	relay    devstack.KeyPair
	stranger *devstack.CA     // signed neither
	foreign  devstack.KeyPair // a client of the stranger's
}

// The users of Kafka, and their passwords there and in PostgreSQL. The plain
// listener knows no user and may do everything; so may tester, and whoever has
// the certificate of the name certified. The others have what the manual
// grants.
const (
	tester, relayUser, archiveUser, appUser = "tester", "relay", "archive", "app"
)

var passwords = map[string]string{
	tester: "open-sesame-4711", relayUser: "relay-secret-0815", archiveUser: "archive-secret-42", appUser: "app-secret-137", keeperUser: "keeper-secret-7",
}

const keeperUser = "keeper"

// hba lets the superuser in for the tests' own work, then has the manual's
// lines; everybody else needs TLS, and the role certified a client certificate
// of its name besides.
func hba() (string, error) {
	blocks, err := manual("Connecting to PostgreSQL", "")
	if err != nil || len(blocks) != 1 {
		return "", fmt.Errorf("%d blocks of pg_hba.conf in the manual, want 1: %w", len(blocks), err)
	}
	return `
local   all         all                     trust
host    all         postgres  127.0.0.1/32  scram-sha-256
` + strings.ReplaceAll(blocks[0], "10.0.0.0/8", "127.0.0.1/32") + `
hostssl all         certified 127.0.0.1/32  scram-sha-256 clientcert=verify-full
hostssl all         all       127.0.0.1/32  scram-sha-256
`, nil
}

var shared struct {
	once sync.Once
	*world
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if w := shared.world; w != nil {
		if err := w.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func theWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test needs real servers")
	}
	shared.once.Do(func() { shared.world, shared.err = startWorld() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.world
}

func startWorld() (*world, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // a first start may have to fetch the servers
	defer cancel()
	w := new(world)
	var err error
	if w.dir, w.remove, err = devstack.TempDir(); err != nil {
		return nil, err
	}
	w.ca, err = devstack.NewCA(filepath.Join(w.dir, "ca"))
	if err != nil {
		return nil, err
	}
	w.stranger, err = devstack.NewCA(filepath.Join(w.dir, "stranger"))
	if err != nil {
		return nil, err
	}
	lines, err := hba()
	if err != nil {
		return nil, err
	}
	var err1, err2, err3 error
	w.client, err1 = w.ca.Issue("certified")
	w.relay, err2 = w.ca.Issue(relayUser)
	w.foreign, err3 = w.stranger.Issue("certified")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		w.kafka, err = devstack.StartKafka(gctx, devstack.KafkaOptions{
			Dir: filepath.Join(w.dir, "kafka"), Security: &devstack.KafkaSecurity{CA: w.ca, Users: passwords}, Progress: os.Stderr,
			Settings: map[string]string{
				"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
				"super.users":           "User:ANONYMOUS;User:" + tester + ";User:CN=certified",
			},
		})
		return err
	})
	g.Go(func() (err error) {
		w.postgres, err = devstack.StartPostgres(gctx, devstack.PostgresOptions{
			Dir: filepath.Join(w.dir, "postgres"), NoFsync: true, TLS: w.ca, HBA: lines, Progress: os.Stderr,
		})
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, w.stop())
	}
	return w, nil
}

func (w *world) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	if w.kafka != nil {
		errs = append(errs, w.kafka.Kill()) // a clean stop takes seconds, and nobody reads it again
	}
	if w.postgres != nil {
		errs = append(errs, w.postgres.Stop(ctx))
	}
	return errors.Join(append(errs, w.remove())...)
}

// secret keeps text in a file of the test's own, as an operator would, with a
// line break at its end.
func secret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A login is one way to connect to Kafka that is allowed.
type login struct {
	name  string
	flags kafkaflags.Flags
}

// logins are all of them, for user where there is one.
func (w *world) logins(t *testing.T, user string) []login {
	t.Helper()
	tls := kafkaflags.Flags{Brokers: w.kafka.Secure.SASL, TLS: true, CAFile: w.ca.File}
	with := func(change func(f *kafkaflags.Flags)) kafkaflags.Flags {
		f := tls
		change(&f)
		return f
	}
	token := "--token--"
	ways := map[string]kafkaflags.Flags{
		"client certificate": with(func(f *kafkaflags.Flags) {
			f.Brokers, f.CertFile, f.KeyFile = w.kafka.Secure.MTLS, w.client.CertFile, w.client.KeyFile
		}),
		"token file": with(func(f *kafkaflags.Flags) {
			token = secret(t, unsecured(user, time.Hour))
			f.SASL, f.TokenFile = kafkaflags.OAuthBearer, token
		}),
		"password file": with(func(f *kafkaflags.Flags) {
			f.SASL, f.User, f.PasswordFile = kafkaflags.ScramSHA512, user, secret(t, passwords[user])
		}),
		"SCRAM without TLS": {
			Brokers: w.kafka.Secure.Plaintext, SASL: kafkaflags.ScramSHA512, User: user, Password: secretOf(user),
		},
		"PLAIN without TLS": {
			Brokers: w.kafka.Secure.Plaintext, SASL: kafkaflags.Plain, User: user, Password: secretOf(user), AllowPlaintext: true,
		},
	}
	for _, mechanism := range []string{kafkaflags.Plain, kafkaflags.ScramSHA256, kafkaflags.ScramSHA512} {
		ways[mechanism] = with(func(f *kafkaflags.Flags) { f.SASL, f.User, f.Password = mechanism, user, secretOf(user) })
	}
	all := make([]login, 0, len(ways))
	for _, name := range sorted(maps.Keys(ways)) {
		all = append(all, login{name, ways[name]})
	}
	return all
}
