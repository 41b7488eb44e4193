package faults

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// long says that the tests take their time: make test-long.
func long() bool { return os.Getenv("WALPOST_TEST_LONG") != "" }

// servers are a PostgreSQL and a Kafka that faults may happen to, and a
// network between them and the relay. Tests share them, one after the other.
type servers struct {
	relay string // the program

	postgres  *devstack.Postgres
	pgOptions devstack.PostgresOptions
	pgNetwork *devstack.Proxy

	kafka        *devstack.Kafka
	kafkaOptions devstack.KafkaOptions
	kafkaNetwork *devstack.Proxy
}

// startServers starts the servers, which are stopped at the end of the test.
func startServers(t *testing.T) *servers {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: starts real servers")
	}
	s := &servers{relay: filepath.Join(devstacktest.Build(t, "cmd/relay"), "relay")}
	s.startPostgres(t)
	s.kafkaNetwork = network(t, "")
	s.kafkaOptions = devstack.KafkaOptions{Dir: devstacktest.Dir(t), Proxy: s.kafkaNetwork}
	s.startKafka(t)
	t.Cleanup(func() { _ = s.kafka.Kill() })
	s.kafkaOptions.Port = port(t, "kafka://"+s.kafka.Brokers[0])
	return s
}

// startPostgres starts the PostgreSQL, whose commits are flushed before they
// return: only then does a crash leave every commit that was reported.
func (s *servers) startPostgres(t *testing.T) {
	t.Helper()
	s.pgOptions = devstack.PostgresOptions{Dir: devstacktest.Dir(t), NoFsync: true, Settings: map[string]string{
		"synchronous_commit": "on", "checkpoint_timeout": "1h", "max_wal_size": "8GB",
	}}
	s.restartPostgres(t)
	t.Cleanup(func() { _ = s.postgres.Kill() })
	s.pgOptions.Port = port(t, s.postgres.DSN)
	s.pgNetwork = network(t, "127.0.0.1:"+strconv.Itoa(s.pgOptions.Port))
}

func (s *servers) restartPostgres(t *testing.T) {
	t.Helper()
	var err error
	if s.postgres, err = devstack.StartPostgres(context.WithoutCancel(t.Context()), s.pgOptions); err != nil {
		t.Fatal(err)
	}
}

func (s *servers) startKafka(t *testing.T) {
	t.Helper()
	var err error
	if s.kafka, err = devstack.StartKafka(context.WithoutCancel(t.Context()), s.kafkaOptions); err != nil {
		t.Fatal(err)
	}
}

// network gives a proxy in front of target that ends with the test.
func network(t *testing.T, target string) *devstack.Proxy {
	t.Helper()
	p, err := devstack.StartProxy(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func port(t *testing.T, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return n
}
