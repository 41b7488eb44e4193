package position_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/position"
)

// A writer stores positions of a source, in transactions where it has an id.
type writer struct {
	t       *testing.T
	client  *kgo.Client
	store   *position.Store
	options []kgo.Opt
}

func newWriter(t *testing.T, brokers []string, topic, source, transactional string) *writer {
	t.Helper()
	options := []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(50 * time.Millisecond)}
	w := &writer{t: t, options: options, store: &position.Store{Options: options, Topic: topic, Source: source, Replication: -1}}
	if transactional != "" {
		w.options = append(w.options, kgo.TransactionalID(transactional))
	}
	w.connect()
	if err := w.store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writer) connect() {
	w.t.Helper()
	client, err := kgo.NewClient(w.options...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	w.client, w.store.Client = client, client
}

func at(sequence int64) position.Position {
	return position.Position{SystemID: "1", Slot: "s", Generation: 1, Commit: lsn.Pos(sequence * 10), End: lsn.Pos(sequence*10 + 5), Sequence: sequence}
}

func (w *writer) save(sequence int64) {
	w.t.Helper()
	if err := w.store.Save(w.t.Context(), at(sequence)); err != nil {
		w.t.Fatal(err)
	}
}

// open writes a position in a transaction and leaves that open.
func (w *writer) open(sequence int64) {
	w.t.Helper()
	if err := w.client.BeginTransaction(); err != nil {
		w.t.Fatal(err)
	}
	record, err := w.store.Record(at(sequence))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.client.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// end ends the transaction, and waits as the next relay does until its end is
// written: a commit is answered before that.
func (w *writer) end(how kgo.TransactionEndTry) {
	w.t.Helper()
	if err := w.client.EndTransaction(w.t.Context(), how); err != nil {
		w.t.Fatal(err)
	}
	w.client.Close()
	w.connect()
	if _, _, err := w.client.ProducerID(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// loads checks what a relay that starts now would go on from; 0 is nothing.
func (w *writer) loads(sequence int64, transactional bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	p, found, err := w.store.Load(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	if found != (sequence != 0) || p.Sequence != sequence || p.Transactional != transactional {
		w.t.Errorf("loaded sequence %d, transactional %t; want %d, %t", p.Sequence, p.Transactional, sequence, transactional)
	}
}

// TestLoadTakesWhatIsCommitted follows a source from one kind of writing to
// the other and back.
func TestLoadTakesWhatIsCommitted(t *testing.T) {
	brokers, topic := devstacktest.Kafka(t), "_"+devstacktest.Name(t)
	plain := newWriter(t, brokers, topic, "a", "")
	inTransactions := newWriter(t, brokers, topic, "a", topic+".a")
	plain.loads(0, false)
	inTransactions.open(1)
	plain.loads(0, true) // one that may still be committed
	inTransactions.end(kgo.TryAbort)
	plain.loads(0, true)
	plain.save(2)
	plain.loads(2, false)
	inTransactions.open(3)
	plain.loads(2, true)
	inTransactions.end(kgo.TryCommit)
	plain.loads(3, true)
	inTransactions.open(4)
	plain.save(5) // behind one that is committed later, and so the last
	plain.loads(5, false)
	inTransactions.end(kgo.TryCommit)
	plain.loads(5, false)
}

// TestLoadLooksBeyondTheTransactionsOfOthers loads while another source has a
// transaction open in front of what this one has committed: a consumer of
// committed records would not see that, and the relay would publish again.
func TestLoadLooksBeyondTheTransactionsOfOthers(t *testing.T) {
	brokers, topic := devstacktest.Kafka(t), "_"+devstacktest.Name(t)
	other := newWriter(t, brokers, topic, "b", topic+".b")
	w := newWriter(t, brokers, topic, "a", topic+".a")
	w.open(1)
	w.end(kgo.TryCommit)
	other.open(7)
	w.open(2)
	w.end(kgo.TryCommit)
	w.loads(2, true)
	other.end(kgo.TryCommit)
	w.loads(2, true)
	other.loads(7, true)
}

// TestLoadFindsAnOldPosition looks beyond the end of the topic, where others
// have written much.
func TestLoadFindsAnOldPosition(t *testing.T) {
	brokers, topic := devstacktest.Kafka(t), "_"+devstacktest.Name(t)
	w := newWriter(t, brokers, topic, "a", "")
	w.save(1)
	other := newWriter(t, brokers, topic, "b", "")
	for i := range int64(1500) {
		record, err := other.store.Record(at(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		other.client.Produce(t.Context(), record, nil)
	}
	if err := other.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.loads(1, false)
	other.loads(1500, false)
}
