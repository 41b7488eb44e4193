package relay_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestNothingIsConfirmedThatKafkaHasNotAcknowledged has a broker that takes
// positions and turns away events, as one whose topic has too few replicas in
// sync. The relay, stopped in that state, must not have told PostgreSQL or the
// positions topic that the event is done: it comes when the broker takes it.
func TestNothingIsConfirmedThatKafkaHasNotAcknowledged(t *testing.T) {
	f := newFixture(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(1, f.topic, f.config.PositionsTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	// A broker each: the client puts all that goes to one in one request.
	for node, topic := range []string{f.topic, f.config.PositionsTopic} {
		if err := cluster.MoveTopicPartition(topic, 0, int32(node)); err != nil {
			t.Fatal(err)
		}
	}
	f.config.Brokers = cluster.ListenAddrs()
	f.config.StopGrace = 300 * time.Millisecond
	f.config.ConfirmEvery = 10 * time.Millisecond
	events := cluster.TopicInfo(f.topic).TopicID

	var refusing atomic.Bool
	var refused atomic.Int64
	refusing.Store(true)
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
		if !ours || !refusing.Load() {
			return nil, nil, false
		}
		refused.Add(1)
		return response, nil, true
	})

	stop := f.start(t)
	f.write(t, f.event("42", 1))
	var committed string
	if err := f.conn.QueryRow(t.Context(), `select pg_current_wal_insert_lsn()::text`).Scan(&committed); err != nil {
		t.Fatal(err)
	}
	// Other transactions and their keepalives must not carry the position over
	// the event either.
	if _, err := f.conn.Exec(t.Context(), `create table other (n int); insert into other select generate_series(1, 1000)`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the broker to turn the event away several times", func() bool { return refused.Load() >= 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var passed bool
	err = f.conn.QueryRow(t.Context(), `select confirmed_flush_lsn >= $1::pg_lsn from pg_replication_slots where database = current_database()`, committed).Scan(&passed)
	if err != nil {
		t.Fatal(err)
	}
	if passed {
		t.Error("PostgreSQL was told that an event is done which Kafka has turned away")
	}

	refusing.Store(false)
	stop = f.start(t)
	got := f.read(t, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got[0].Sequence != 1 || got[0].AggregateVersion != 1 {
		t.Errorf("the event came with sequence %d and version %d, want 1 and 1", got[0].Sequence, got[0].AggregateVersion)
	}
}
