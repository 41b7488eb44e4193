package delivery_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay"
)

// TestAnotherDelivery changes the delivery of a source back and forth, with
// clean stops, under load.
func TestAnotherDelivery(t *testing.T) {
	w := newWorld(t)
	stopLoad := w.load()
	conn := w.connect()
	for i := range 6 {
		config := w.config
		if i%2 == 0 {
			config.Delivery = relay.ExactlyOnce
		}
		stop := w.start(config)
		w.write(conn, 2500)
		w.published()
		w.write(conn, 2500) // to be stopped in
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	stop := w.start(w.config)
	stopLoad()
	w.once(w.records(kgo.ReadUncommitted()))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherDeliveryAfterAKill changes the delivery while the relay of before
// was killed inside its work.
func TestAnotherDeliveryAfterAKill(t *testing.T) {
	w := newWorld(t)
	stopLoad := w.load()
	plain, transactions := w.config, w.with(exactlyOnce)
	w.spawn(transactions, acknowledged, 50).dies()
	w.spawn(plain, acknowledged, 500).dies()
	w.spawn(transactions, commitSent, 3).dies()
	w.spawn(plain, saveSent, 2).dies()
	w.spawn(transactions, commitDone, 3).dies()
	stop := w.start(plain)
	stopLoad()
	w.repeats(w.records(kgo.ReadCommitted()))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestAtLeastOnceGoesOnInsideATransaction kills the relay in the middle of a
// transaction of 50,000 rows. What the stored position covers does not come
// again.
func TestAtLeastOnceGoesOnInsideATransaction(t *testing.T) {
	const rows = 50_000
	w := newWorld(t)
	config := w.config
	config.ConfirmEvery = time.Millisecond
	config.MaxBufferBytes = 2 << 20 // positions stand behind records on their way to the broker
	w.write(w.connect(), rows)
	w.spawn(config, acknowledged, 30_000).dies()
	stop := w.start(config)
	again := w.repeats(w.records(kgo.ReadUncommitted()))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(again) == 0 || again[0] < 1000 {
		t.Errorf("%d records come again, the first is %v of %d; the position behind the first thousand at least was stored", len(again), again[:min(1, len(again))], rows)
	}
	t.Logf("%d records came again", len(again))
}
