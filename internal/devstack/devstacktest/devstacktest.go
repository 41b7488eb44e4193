// Package devstacktest gives tests servers to run on and names of their own.
//
// The servers are those of the environment when it names them:
// WALPOST_TEST_POSTGRES (a superuser's DSN), WALPOST_TEST_KAFKA (addresses, by
// comma) and WALPOST_TEST_MONGO (a URI). Otherwise each test process starts
// its own on first use; they die with it. With -short, tests that need a
// server are skipped.
//
// All functions may be called from any goroutine that may call t.FailNow, and
// from many test processes at once.
package devstacktest

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/devstack"
)

// startLimit is for a first start, which may have to fetch the server.
const startLimit = 10 * time.Minute

var (
	kafka = sync.OnceValues(func() (string, error) {
		return start("kafka", func(ctx context.Context, dir string) (string, error) {
			k, err := devstack.StartKafka(ctx, devstack.KafkaOptions{Dir: dir, Progress: os.Stderr})
			if err != nil {
				return "", err
			}
			return strings.Join(k.Brokers, ","), nil
		})
	})
	postgres = sync.OnceValues(func() (string, error) {
		return start("postgres", func(ctx context.Context, dir string) (string, error) {
			p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir, NoFsync: true, Progress: os.Stderr})
			if err != nil {
				return "", err
			}
			return p.DSN, nil
		})
	})
	mongodb = sync.OnceValues(func() (string, error) {
		return start("mongo", func(ctx context.Context, dir string) (string, error) {
			m, err := devstack.StartMongo(ctx, devstack.MongoOptions{Dir: dir, Progress: os.Stderr})
			if err != nil {
				return "", err
			}
			return m.URI, nil
		})
	})
)

func start(name string, server func(ctx context.Context, dir string) (string, error)) (string, error) {
	dir, err := processDir()
	if err != nil {
		return "", err
	}
	// Of the process, not of the test that happens to be the first.
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return server(ctx, dir+"/"+name)
}

// server gives the address in the environment variable, else that of the
// process's own server.
func server(t testing.TB, variable string, own func() (string, error)) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: this test needs a real server")
	}
	if address := os.Getenv(variable); address != "" {
		return address
	}
	address, err := own()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Kafka gives the seed brokers of an Apache Kafka shared with other tests: use
// [Name] for topics, groups and transactional ids.
func Kafka(t testing.TB) []string {
	t.Helper()
	return strings.Split(server(t, "WALPOST_TEST_KAFKA", kafka), ",")
}

// Name gives a short name that no other test has: lower-case letters, digits
// and underscores, beginning with a letter, with something of the test's name.
func Name(t testing.TB) string {
	var b strings.Builder
	b.WriteString("t_")
	for _, r := range strings.ToLower(strings.TrimPrefix(t.Name(), "Test")) {
		switch {
		case b.Len() == 24:
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		default:
			b.WriteByte('_')
		}
	}
	return b.String() + "_" + strings.ToLower(rand.Text()[:12])
}
