package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

func TestEveryKindOfRecordIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	odd := b.event("odd", 1)
	odd.ContentType, odd.Data = "application/octet-stream", []byte{0, 0xff, '{', 1}
	rewritten := b.event("a", 1)
	rewritten.Data = []byte(`{"n": 1, "forged": true}`)
	rewritten.AggregateVersion = 9 // so that only the id tells
	sameVersion := b.event("a", 1)
	sameVersion.ID += "-other"
	sequenced, sameSequence := b.event("s", 1), b.event("s", 2)
	sequenced.Sequence, sameSequence.Sequence = 5, 5
	unversioned, unversioned2 := b.event("u", 1), b.event("u", 2)
	unversioned.AggregateVersion, unversioned2.AggregateVersion = 0, 0

	run := b.start(nil)
	b.produceEvents(b.event("a", 1), b.event("a", 2), odd, sequenced, unversioned, unversioned2)
	b.untilCount("events", 6)
	b.produceEvents(b.event("a", 2)) // published again
	b.produceEvents(rewritten, sameVersion, sameSequence)
	b.produce(&kgo.Record{Topic: b.topic, Key: []byte("k\xff"), Value: []byte("no \x00event"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("\xfe")}}})
	b.produce(&kgo.Record{Topic: b.topic}) // a tombstone
	b.produceEvents(b.event("a", 3))       // goes on after all that

	b.untilCount("events", 7)
	b.untilCount("quarantine", 5)
	b.untilMetric(run, `archive_redeliveries_total{kind="published_again"} 1`)
	b.untilMetric(run, `archive_documents_written_total 7`)
	b.untilMetric(run, `archive_quarantined_total{reason="not_an_event"} 2`)
	b.untilCommitted(6 + 1 + 3 + 2 + 1)
	reasons := map[string]int{}
	for _, q := range b.quarantined() {
		reasons[q.Reason]++
		if q.Reason == "id_conflict" && !bytes.Equal(q.Value, rewritten.Data) {
			t.Errorf("in quarantine is %q, want %q", q.Value, rewritten.Data)
		}
		if q.Reason == "not_an_event" && q.Value != nil && (string(q.Value) != "no \x00event" || string(q.Key) != "k\xff") {
			t.Errorf("in quarantine are key %q and value %q", q.Key, q.Value)
		}
	}
	for reason, want := range map[string]int{"id_conflict": 1, "version_conflict": 1, "sequence_conflict": 1, "not_an_event": 2} {
		if reasons[reason] != want {
			t.Errorf("%d records in quarantine as %s, want %d (%v)", reasons[reason], reason, want, reasons)
		}
	}

	store := archive.NewStore(b.db, nil)
	page, err := store.Events(t.Context(), "thing", "odd", 1, 0, "")
	if err != nil || len(page.Events) != 1 || !bytes.Equal(page.Events[0].Payload, odd.Data) || !page.Events[0].Time.Equal(odd.Time) {
		t.Errorf("read back %+v, %v; want payload %q and time %v", page, err, odd.Data, odd.Time)
	}

	// All of it again, as after offsets were lost: counted, and no document more.
	run.stop(t)
	if _, err := b.admin.DeleteGroups(t.Context(), b.name); err != nil {
		t.Fatal(err)
	}
	run = b.start(nil)
	b.untilCommitted(13)
	b.untilMetric(run, `archive_redeliveries_total{kind="consumed_again"} 7`)
	b.untilMetric(run, `archive_redeliveries_total{kind="published_again"} 1`)
	b.untilMetric(run, `archive_documents_written_total 0`)
	b.untilCount("events", 7)
	b.untilCount("quarantine", 5)
}

func TestReadingInPagesAndFolding(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	var events []*cloudevent.Event
	for n := range int64(25) {
		events = append(events, b.event("a", n+1))
	}
	events[0].Data = []byte(`{"n": 1, "balance": 12345678901234567890.10, "gone": 1}`)
	events[3].Data = []byte(`{"n": 4, "gone": null}`)
	b.produceEvents(events...)
	b.untilCount("events", 25)
	store := archive.NewStore(b.db, archive.Folds{"other": nil})
	var versions []int64
	for after := ""; ; {
		page, err := store.Events(t.Context(), "thing", "a", 3, 10, after)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			versions = append(versions, e.Version)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(versions) != 23 || versions[0] != 3 || versions[22] != 25 {
		t.Errorf("versions %v, want 3 to 25", versions)
	}
	tests := map[string]struct {
		until archive.Until
		want  string
		count int64
	}{
		"all":             {archive.Until{}, `{"balance":12345678901234567890.10,"n":25}`, 25},
		"by version":      {archive.Until{Version: 3}, `{"balance":12345678901234567890.10,"gone":1,"n":3}`, 3},
		"by time":         {archive.Until{At: events[3].Time}, `{"balance":12345678901234567890.10,"n":4}`, 4},
		"just before":     {archive.Until{At: events[3].Time.Add(-time.Microsecond)}, `{"balance":12345678901234567890.10,"gone":1,"n":3}`, 3},
		"version, beyond": {archive.Until{Version: 99}, `{"balance":12345678901234567890.10,"n":25}`, 25},
	}
	for name, tt := range tests {
		st, err := store.State(t.Context(), "thing", "a", tt.until)
		if err != nil || string(st.State) != tt.want || st.EventCount != tt.count || st.Version != tt.count {
			t.Errorf("%s: state %s of %d events, %v; want %s of %d", name, st.State, st.EventCount, err, tt.want, tt.count)
		}
	}
	for name, aggregate := range map[string]string{"unknown": "b", "before the first": "a"} {
		if _, err := store.State(t.Context(), "thing", aggregate, archive.Until{At: events[0].Time.Add(-time.Hour)}); !errors.Is(err, archive.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
}

func TestReadingWithoutTheIndex(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	store := archive.NewStore(b.db, nil)
	if _, err := store.State(t.Context(), "thing", "a", archive.Until{}); !errors.Is(err, archive.ErrNotFound) {
		t.Errorf("before the first start: %v, want ErrNotFound", err)
	}
	b.start(nil)
	b.produceEvents(b.event("a", 1))
	b.untilCount("events", 1)
	if err := b.db.Collection("events").Indexes().DropOne(t.Context(), "aggregate_version"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.State(t.Context(), "thing", "a", archive.Until{}); err == nil || errors.Is(err, archive.ErrNotFound) {
		t.Errorf("with the index dropped: %v, want an error that says so", err)
	}
}

func TestNewTopicJoinsByItself(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	run := b.start(nil)
	b.produceEvents(b.event("a", 1))
	b.untilCount("events", 1)
	if err := run.Ready(t.Context()); err != nil {
		t.Errorf("not ready while it archives: %v", err)
	}
	topic := b.makeTopic("two", 1)
	b.produce(cloudevent.Record(topic, b.event("b", 1)))
	b.untilCount("events", 2)
	b.untilCommitted(2)
}

// load produces events of many aggregates until it has made n, and says so.
func (b *bench) load(n int) (done chan error) {
	done = make(chan error, 1)
	go func() {
		for i := 0; i < n; i += 100 {
			var records []*kgo.Record
			for j := range 100 {
				records = append(records, cloudevent.Record(b.topic, b.event(fmt.Sprint(j%50), int64(i/50+j/50+1))))
			}
			if err := b.kafka.ProduceSync(b.t.Context(), records...).FirstErr(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return done
}

func TestStoppedInTheMiddleLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 5000
	b := newBench(t)
	loaded := b.load(n)
	for range 5 {
		run := b.start(func(c *archive.Config) { c.BatchRecords = 200; c.Instance = "one" })
		before := int64(0)
		b.until(func(ctx context.Context) (string, error) {
			count, err := b.db.Collection("events").CountDocuments(ctx, bson.D{})
			if before == 0 {
				before = count
			}
			if count <= before && count < n {
				return "nothing more is written", err
			}
			return "", err
		})
		run.stop(t)
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	b.start(func(c *archive.Config) { c.Instance = "one" })
	b.untilCount("events", n)
	b.untilCommitted(n)
	if q := b.quarantined(); len(q) != 0 {
		t.Errorf("%d records in quarantine, the first as %s: %s", len(q), q[0].Reason, q[0].Detail)
	}
}

func TestMongoKilledUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a MongoDB of its own to kill: skipped by -short")
	}
	const n = 5000
	o := devstack.MongoOptions{Dir: devstacktest.Dir(t), Progress: t.Output()}
	server, err := devstack.StartMongo(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if server.Kind == devstack.KindExternal {
		t.Skip("the MongoDB of WALPOST_MONGO_URI is not ours to kill: unset it to run this test")
	}
	t.Cleanup(func() { _ = server.Stop(context.WithoutCancel(t.Context())) })
	b := newBenchOn(t, server.URI, "eventstore")
	run := b.start(func(c *archive.Config) { c.BatchRecords = 200 })
	loaded := b.load(n)
	b.until(func(ctx context.Context) (string, error) {
		count, err := b.db.Collection("events").CountDocuments(ctx, bson.D{})
		if count < 400 {
			return fmt.Sprintf("%d events written", count), err
		}
		return "", err
	})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	<-server.Done()
	b.untilFailure(run)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	if err := run.Ready(t.Context()); err == nil {
		t.Error("ready while MongoDB is down")
	}
	_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(server.URI, "mongodb://"), "/?directConnection=true"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(port, &o.Port); err != nil {
		t.Fatal(err)
	}
	if server, err = devstack.StartMongo(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b.untilCount("events", n)
	b.untilCommitted(n)
	b.untilMetric(run, fmt.Sprintf("archive_documents_written_total %d", n))
	if q := b.quarantined(); len(q) != 0 {
		t.Errorf("%d records in quarantine, the first as %s: %s", len(q), q[0].Reason, q[0].Detail)
	}
}

// A record whose offset were committed before its write would be lost if the
// archive died between the two.
func TestOffsetsAreCommittedOnlyAfterTheWrite(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	gate := b.gate()
	run := b.start(nil)
	b.produceEvents(b.event("a", 1))
	b.untilCommitted(1)

	gate.shut()
	b.produceEvents(b.event("a", 2), b.event("a", 3))
	b.untilFailure(run)
	if n, err := b.committed(t.Context()); err != nil || n != 1 {
		t.Errorf("%d records are committed while MongoDB is out of reach (%v), want the one before", n, err)
	}
	run.stop(t) // also a stop commits nothing that is not written
	if n, err := b.committed(t.Context()); err != nil || n != 1 {
		t.Errorf("%d records are committed by the stop (%v), want the one before", n, err)
	}
	gate.open()
	b.start(nil)
	b.untilCount("events", 3)
	b.untilCommitted(3)
}

// An insert whose answer is lost is tried again, and finds its own document.
func TestLostAnswerIsNoRedelivery(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	gate := b.gate()
	run := b.start(nil)
	b.produceEvents(b.event("a", 1))
	b.untilCommitted(1)

	gate.muted.Store(true)
	b.produceEvents(b.event("a", 2))
	b.untilCount("events", 2)
	b.untilFailure(run)
	gate.muted.Store(false)
	b.untilCommitted(2)
	b.untilMetric(run, `archive_documents_written_total 2`)
	b.untilMetric(run, `archive_redeliveries_total{kind="consumed_again"} 0`)
}

func TestRunLeavesNoGoroutineBehind(t *testing.T) {
	b := newBench(t) // not parallel: others' goroutines come and go
	b.produceEvents(b.event("a", 1))
	b.untilCount("events", 0) // the bench's own client has its goroutines by now
	before := goleak.IgnoreCurrent()
	run := b.start(nil)
	b.untilCount("events", 1)
	run.stop(t)
	goleak.VerifyNone(t, before)
}
