package faults

import (
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
)

// kafkaFaults happen to the broker.
func kafkaFaults() []fault {
	return []fault{
		{name: "broker killed", again: anyNumber, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.must(w.servers.kafka.Kill())
			w.load.burst(100)
			w.startKafka(w.t)
		}},
		{name: "broker stands still", do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.must(w.servers.kafka.Pause())
			w.written(300)
			w.must(w.servers.kafka.Resume())
		}},
	}
}

// delivered waits until PostgreSQL has sent the relay all that is committed
// now, and half a second longer by what the relay then reports, in which it
// would have stored a position.
func (w *world) delivered() {
	w.t.Helper()
	end := w.logEnd()
	since := time.Time{}
	devstacktest.Wait(w.t, "the relay to have it all", patience, func() (done bool) {
		var now, reply time.Time
		w.must(w.pool.QueryRow(w.t.Context(), `
			select coalesce(bool_or(sent_lsn >= $1::pg_lsn), false), clock_timestamp(), coalesce(max(reply_time), 'epoch')
			from pg_stat_replication where pid = $2`, end.String(), w.walsender()).Scan(&done, &now, &reply))
		if done && since.IsZero() {
			since = now
		}
		return done && reply.After(since.Add(500*time.Millisecond))
	})
}

// alterTopics sets a property of the topics of events.
func (w *world) alterTopics(name, value string) {
	w.t.Helper()
	client, err := kgo.NewClient(w.kafka...)
	w.must(err)
	defer client.Close()
	altered, err := kadm.NewClient(client).AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, w.topics...)
	w.must(err)
	for _, a := range altered {
		w.must(a.Err)
	}
}
