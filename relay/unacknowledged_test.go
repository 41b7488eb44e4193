package relay_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
)

// A gate is a broker that takes positions and, while it is closed, turns
// events away, as one whose topic has too few replicas in sync.
type gate struct {
	closed atomic.Bool
	turned atomic.Int64 // requests turned away
}

// newGate puts the fixture on a closed gate.
func newGate(t *testing.T, f *fixture) *gate {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(1, f.topic, f.config.PositionsTopic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	// A broker each: the client puts all that goes to one in one request.
	for node, topic := range []string{f.topic, f.config.PositionsTopic} {
		if err := cluster.MoveTopicPartition(topic, 0, int32(node)); err != nil {
			t.Fatal(err)
		}
	}
	f.config.Brokers = cluster.ListenAddrs()
	events := cluster.TopicInfo(f.topic).TopicID
	g := new(gate)
	g.closed.Store(true)
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		ours := false
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range produce.Topics {
			ours = ours || topic.Topic == f.topic || topic.TopicID == events
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = partition.Partition, kerr.NotEnoughReplicas.Code
				answer.Partitions = append(answer.Partitions, p)
			}
			response.Topics = append(response.Topics, answer)
		}
		if !ours || !g.closed.Load() {
			return nil, nil, false
		}
		g.turned.Add(1)
		return response, nil, true
	})
	return g
}

// TestNothingIsConfirmedThatKafkaHasNotAcknowledged stops the relay while its
// event is turned away. It must not have told PostgreSQL or the positions
// topic that the event is done: it comes when the broker takes it.
func TestNothingIsConfirmedThatKafkaHasNotAcknowledged(t *testing.T) {
	f := newFixture(t)
	g := newGate(t, f)
	f.config.StopGrace = 300 * time.Millisecond
	f.config.ConfirmEvery = 10 * time.Millisecond

	stop := f.start(t)
	f.write(t, f.event("42", 1))
	var committed string
	// The insert position: what is written and flushed lags behind it while
	// commits are not synchronous.
	if err := f.conn.QueryRow(t.Context(), `select pg_current_wal_insert_lsn()::text`).Scan(&committed); err != nil {
		t.Fatal(err)
	}
	// Other transactions and their keepalives must not carry the position over
	// the event either.
	if _, err := f.conn.Exec(t.Context(), `create table other (n int); insert into other select generate_series(1, 1000)`); err != nil {
		t.Fatal(err)
	}
	devstacktest.Wait(t, "the broker to turn the event away several times", 30*time.Second, func() bool { return g.turned.Load() >= 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var passed bool
	err := f.conn.QueryRow(t.Context(), `select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where database = current_database()`, committed).Scan(&passed)
	if err != nil {
		t.Fatal(err)
	}
	if passed {
		t.Error("PostgreSQL was told that an event is done which Kafka has turned away")
	}

	g.closed.Store(false)
	stop = f.start(t)
	got := f.read(t, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got[0].Sequence != 1 || got[0].AggregateVersion != 1 {
		t.Errorf("the event came with sequence %d and version %d, want 1 and 1", got[0].Sequence, got[0].AggregateVersion)
	}
}

// TestAFullBufferWaitsAndStaysAlive writes four times what the relay may hold
// while Kafka takes nothing. The buffer stays within its bound, PostgreSQL goes
// on hearing from the relay for longer than it would wait, and everything
// comes, once and in order, when Kafka takes it.
func TestAFullBufferWaitsAndStaysAlive(t *testing.T) {
	f := newFixture(t)
	g := newGate(t, f)
	registry := prometheus.NewRegistry()
	f.config.Metrics = registry
	f.config.MaxBufferBytes = 1 << 20
	f.config.SenderTimeout = time.Second
	stop := f.start(t)
	const n = 2000
	var events []outbox.Event
	for i := range n {
		e := f.event("42", int64(i+1))
		e.Payload = fmt.Appendf(nil, `{"note":%q}`, strings.Repeat("x", 1000))
		events = append(events, e)
	}
	f.write(t, events...)

	var most float64
	full := func() bool {
		bytes := gauge(t, registry, "relay_buffered_bytes")
		most = max(most, bytes)
		return bytes > 1<<20*3/4
	}
	devstacktest.Wait(t, "the buffer to be full", 30*time.Second, full)
	heard := func(from string) (pid int, at string, later bool) {
		err := f.conn.QueryRow(t.Context(), `select pid, reply_time::text, reply_time > $1::timestamptz + interval '3 s'
			from pg_stat_replication where application_name is not null and pid = (select active_pid from pg_replication_slots where database = current_database())`,
			from).Scan(&pid, &at, &later)
		if err != nil {
			t.Fatalf("PostgreSQL has hung up on the relay: %v", err)
		}
		return pid, at, later
	}
	pid, since, _ := heard("now")
	devstacktest.Wait(t, "PostgreSQL to have heard from the relay for three times its patience", 30*time.Second, func() bool {
		again, _, later := heard(since)
		if again != pid {
			t.Fatalf("another walsender, %d instead of %d: the first hung up", again, pid)
		}
		if !full() {
			t.Fatal("the buffer has emptied while Kafka takes nothing")
		}
		return later
	})
	if most > 1<<20 {
		t.Errorf("the buffer held %.0f bytes, its bound is %d", most, 1<<20)
	}

	g.closed.Store(false)
	got := f.read(t, n)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i, e := range got {
		if e.Sequence != int64(i+1) || e.AggregateVersion != int64(i+1) {
			t.Fatalf("record %d has sequence %d and version %d", i, e.Sequence, e.AggregateVersion)
		}
	}
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
