package delivery_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay"
)

// TestExactlyOnceKilled kills relays with signal 9 around the commit of a Kafka
// transaction, under load: with its records in Kafka and no commit, with a
// commit whose outcome the relay does not know, and with one that PostgreSQL
// has not heard of.
func TestExactlyOnceKilled(t *testing.T) {
	for _, at := range []place{acknowledged, commitSent, commitDone} {
		t.Run(string(at), func(t *testing.T) {
			w := newWorld(t)
			config := w.with(exactlyOnce)
			stopLoad := w.load()
			for after := range int64(4) {
				if at == acknowledged {
					after *= 23
				} else {
					after += 2 // beyond the first, which tells that there is something to fence
				}
				w.spawn(config, at, after).dies()
			}
			stop := w.start(config)
			stopLoad()
			w.once(w.records(kgo.ReadCommitted()))
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if at == acknowledged {
				if all := w.records(kgo.ReadUncommitted()); len(all) == w.written {
					t.Error("no record was ever taken back: the relay did not die inside a transaction")
				}
			}
		})
	}
}

// TestExactlyOnceInOneLargeTransaction publishes a transaction of 50,000 rows
// in many of Kafka's, and dies in the middle of it, twice.
func TestExactlyOnceInOneLargeTransaction(t *testing.T) {
	const rows = 50_000
	w := newWorld(t)
	config := w.with(exactlyOnce)
	config.TransactionRecords = 1000
	conn := w.connect()
	w.write(conn, 3)
	w.write(conn, rows)
	w.write(conn, 3)
	w.spawn(config, acknowledged, 23_456).dies()
	w.spawn(config, commitDone, 7).dies()
	stop := w.start(config)
	records := w.records(kgo.ReadCommitted())
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.once(records)
	for _, r := range records {
		index := r.position[strings.LastIndexByte(r.position, '/')+1:]
		if r.number > 3 && r.number <= rows+3 && index != itoa(r.number-4) {
			t.Fatalf("event %d of the transaction has the position %s", r.number-4, r.position)
		}
	}
}

// TestAFrozenRelayIsFenced stops a relay with its Kafka transaction open, lets
// another one take over and publish the same events, and wakes the first. It
// must not commit what it had begun.
func TestAFrozenRelayIsFenced(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.ExactlyOnce, relay.AtLeastOnce} {
		t.Run("for "+string(delivery), func(t *testing.T) {
			w := newWorld(t)
			config := w.with(exactlyOnce)
			config.SenderTimeout = 2 * time.Second
			config.TransactionEvery = time.Second // so that one is open
			frozen := w.spawn(config, nowhere, 0)
			stopLoad := w.load()
			w.published()
			frozen.signal(stopSignal)

			next := config
			next.Delivery = delivery
			stop := w.start(next)
			w.published()
			frozen.signal(contSignal)
			w.published()
			stopLoad()
			records := w.records(kgo.ReadCommitted())
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			w.once(records)

			// The first one is a standby now and goes on where the other has ended.
			w.write(w.connect(), 5)
			w.once(w.records(kgo.ReadCommitted()))
		})
	}
}

// TestAProducerThatNoticesNothingIsFenced has a Kafka transaction open in the
// name of the source, as a relay that is told nothing of its end, when another
// one begins. Kafka must not let it commit.
func TestAProducerThatNoticesNothingIsFenced(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.ExactlyOnce, relay.AtLeastOnce} {
		t.Run("for "+string(delivery), func(t *testing.T) {
			w := newWorld(t)
			stop := w.start(w.with(exactlyOnce))
			w.published()
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			zombie, err := kgo.NewClient(kgo.SeedBrokers(w.config.Brokers...), kgo.TransactionalID("relay."+w.config.Source), kgo.MetadataMinAge(50*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			defer zombie.Close()
			if err := zombie.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := zombie.ProduceSync(t.Context(), &kgo.Record{Topic: w.topic, Value: []byte("not to be seen")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			next := w.config
			next.Delivery = delivery
			stop = w.start(next)
			err = zombie.EndTransaction(t.Context(), kgo.TryCommit)
			if !errors.Is(err, kerr.InvalidProducerEpoch) && !errors.Is(err, kerr.ProducerFenced) {
				t.Errorf("the commit of the one before: %v, want it fenced", err)
			}
			w.write(w.connect(), 1)
			w.once(w.records(kgo.ReadCommitted()))
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
