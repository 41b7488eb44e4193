package status_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/status"
)

type world struct {
	t      *testing.T
	conn   *pgx.Conn
	config relay.Config
	topic  string
	ops    string
}

func newWorld(t *testing.T, dsn string, brokers []string) *world {
	t.Helper()
	name := devstacktest.Name(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := conn.Exec(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, conn: conn, topic: "created", config: relay.Config{
		Postgres: dsn, Brokers: brokers, Source: name, Slot: name, PositionsTopic: "_" + name + ".positions", StopGrace: time.Second,
		CanaryEvery: -1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
}

// start runs a relay with an operations address until stop is called.
func (w *world) start() (stop func()) {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	w.config.Metrics = registry
	r, err := relay.New(w.config)
	w.config.Metrics = nil
	if err != nil {
		w.t.Fatal(err)
	}
	ops := daemon.Ops{Registry: registry, Ready: r.Ready, Log: slog.New(slog.DiscardHandler)}
	server := httptest.NewServer(ops.Handler())
	w.ops = server.URL
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	devstacktest.Wait(w.t, "the relay to stream", 30*time.Second, func() bool { return r.Ready(ctx) == nil || len(done) > 0 })
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		server.Close()
	}
}

func (w *world) write(n int) {
	w.t.Helper()
	events := make([]outbox.Event, n)
	for i := range events {
		events[i] = outbox.Event{Topic: w.topic, AggregateType: "user", AggregateID: "a", Type: "UserCreated", Payload: make([]byte, 1000)}
	}
	err := pgx.BeginFunc(w.t.Context(), w.conn, func(tx pgx.Tx) error { return outbox.Write(w.t.Context(), tx, events...) })
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) take(ops string) status.Status {
	w.t.Helper()
	watcher, err := status.New(status.Config{Relay: w.config, Ops: ops, Over: 500 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := watcher.Take(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = s.WriteTo(w.t.Output())
	return s
}

// TestOfEveryVersion follows a relay through its life.
func TestOfEveryVersion(t *testing.T) {
	for _, version := range []string{"14", "15", "16", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			w := newWorld(t, devstacktest.DatabaseOf(t, version), cluster.ListenAddrs())
			if s := w.take(""); s.Bottleneck != status.Relay || s.Reader != nil || s.Generation != 0 || s.WALStatus != "missing" {
				t.Errorf("before the first start: %+v", s)
			}
			stop := w.start()
			w.write(10)
			var s status.Status
			devstacktest.Wait(t, "the relay to have caught up", 30*time.Second, func() bool {
				s = w.take(w.ops)
				return s.Sequence == 10 && s.Bottleneck == status.None
			})
			if s.Reader == nil || s.Reader.PID == 0 || s.Reader.Application != "walpost relay" || s.Ops == nil || !s.Ops.Ready || s.Ops.Published != 10 || s.Generation != 1 || s.LagBytes > 1<<20 || s.Lost != "" {
				t.Errorf("caught up: %+v, %+v", s, s.Ops)
			}
			stop()
			w.write(5)
			if s := w.take(w.ops); s.Bottleneck != status.Relay || s.OpsErr == "" || s.LagBytes < 5000 || s.LagSeconds == nil || !s.AtLeast || s.LagEvents != nil {
				t.Errorf("stopped: %+v", s)
			}
			if _, err := w.conn.Exec(t.Context(), "select pg_drop_replication_slot($1)", w.config.Slot); err != nil {
				t.Fatal(err)
			}
			if s := w.take(""); s.Bottleneck != status.Lost || s.Lost == "" || s.Next != "relay recover" {
				t.Errorf("slot dropped: %+v", s)
			}
		})
	}
}

// TestKafkaIsTheBottleneck turns every event away until the relay's buffer is
// full and the walsender waits.
func TestKafkaIsTheBottleneck(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(1, "created"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w := newWorld(t, devstacktest.Database(t), cluster.ListenAddrs())
	w.config.MaxBufferBytes = 1 << 20
	var closed atomic.Bool
	id := cluster.TopicInfo("created").TopicID
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		ours := false
		for _, topic := range produce.Topics {
			ours = ours || topic.Topic == "created" || topic.TopicID == id
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = partition.Partition, kerr.NotEnoughReplicas.Code
				answer.Partitions = append(answer.Partitions, p)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response, nil, ours && closed.Load()
	})
	stop := w.start()
	closed.Store(true)
	w.write(30_000)
	devstacktest.Wait(t, "Kafka to be named", time.Minute, func() bool { return w.take(w.ops).Bottleneck == status.Kafka })
	devstacktest.Wait(t, "either to be named without the relay's word", time.Minute, func() bool { return w.take("").Bottleneck == status.Reading })
	closed.Store(false)
	devstacktest.Wait(t, "the relay to have caught up", time.Minute, func() bool {
		s := w.take(w.ops)
		return s.Sequence == 30_000 && s.Bottleneck == status.None
	})
	stop()
}

// TestNothingIsLostBesideARunningRelay looks while position and slot move.
func TestNothingIsLostBesideARunningRelay(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w := newWorld(t, devstacktest.Database(t), cluster.ListenAddrs())
	w.config.ConfirmEvery = time.Millisecond
	stop := w.start()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.write(1)
		}
	}()
	for range 10 {
		if s := w.take(w.ops); s.Lost != "" {
			t.Errorf("status: %s", s.Lost)
		}
	}
	cancel()
	<-done
	stop()
}
