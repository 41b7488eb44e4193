package recovery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/recovery"
)

// TestASlotDroppedUnderLoad kills the relay and drops its slot while eight
// writers go on, through the recovery and behind it. Every committed event is
// then in Kafka once, those of a key in order, and the sequence is dense.
func TestASlotDroppedUnderLoad(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			w := newWorld(t, devstacktest.Database(t))
			w.config.Delivery = delivery
			program := w.program()
			program.Start()
			w.waitSlot()
			stop := w.load(8)
			w.waitRecords(2000)
			program.Kill()
			w.dropSlot()
			w.waitCommitted(w.committedCount() + 2000)
			report := w.recover(true)
			if report.Missing == 0 || report.Published != report.Missing || report.Generation != 2 {
				t.Errorf("report %+v: want published = missing, above 0, in generation 2", report)
			}
			w.waitCommitted(w.committedCount() + 500)
			program.Start()
			stop()
			w.verify(1)
		})
	}
}

// TestDryRun changes nothing, and says what applying then does.
func TestDryRun(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	for i := range 10 {
		w.write(w.event("a", int64(i+1)))
	}
	w.waitRecords(10)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	w.write(w.event("b", 1), w.event("b", 2), w.event("b", 3))
	w.writeAs(outbox.Packed, w.event("c", 1), w.event("c", 2))
	w.write(w.event("b", 4))
	before := w.everything()
	dry := w.recover(false)
	if after := w.everything(); after != before {
		t.Errorf("the dry run has changed something:\nbefore %s\nafter  %s", before, after)
	}
	if dry.Applied || dry.Rows != 15 || dry.Events != 16 || dry.Known != 10 || dry.Missing != 6 || dry.Topics[w.topic] != 6 || dry.Sequence != 10 || dry.Holes != 0 {
		t.Errorf("dry run: %+v", dry)
	}
	applied := w.recover(true)
	if !applied.Applied || applied.Rows != dry.Rows || applied.Events != dry.Events || applied.Known != dry.Known || applied.Missing != dry.Missing || applied.Published != dry.Missing {
		t.Errorf("dry run: %+v\napplied: %+v", dry, applied)
	}
	stop = w.start()
	w.write(w.event("b", 5))
	w.verify(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if refused, ok := errors.AsType[*recovery.RefusedError](w.tryRecover(true)); !ok {
		t.Errorf("recovery where nothing is lost: %v, want a RefusedError", refused)
	}
}

// TestRefusals: a relay at work, and one that has never been.
func TestRefusals(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	if refused, ok := errors.AsType[*recovery.RefusedError](w.tryRecover(false)); !ok {
		t.Errorf("without a position: %v, want a RefusedError", refused)
	}
	stop := w.start()
	for _, apply := range []bool{false, true} {
		if refused, ok := errors.AsType[*recovery.RefusedError](w.tryRecover(apply)); !ok {
			t.Errorf("beside a relay: %v, want a RefusedError", refused)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestAnInterruptedRecoveryGoesOn ends recoveries after their slot is made and
// some events are published. The relay refuses to start until one has ended.
func TestAnInterruptedRecoveryGoesOn(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	w.write(w.event("a", 1))
	w.waitRecords(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	for v := range int64(30) {
		w.write(w.event("a", v+2))
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.onPublished = func(n int64) {
		if n >= 3 {
			cancel()
		}
	}
	r := w.recovery(true)
	report, err := r.Run(ctx)
	if err == nil || report.Applied || report.Published < 3 || report.Published >= 30 {
		t.Fatalf("interrupted: %v, %+v", err, report)
	}
	w.onPublished = nil
	failed := make(chan error, 1)
	go func() { failed <- w.relay().Run(t.Context()) }()
	select {
	case err := <-failed:
		if gap, ok := errors.AsType[*relay.GapError](err); !ok {
			t.Fatalf("relay after an interrupted recovery: %v, want a gap", gap)
		}
	case <-time.After(time.Minute):
		t.Fatal("the relay has started over an interrupted recovery")
	}
	w.write(w.event("a", 32))
	w.recover(true)
	stop = w.start()
	w.write(w.event("a", 33))
	w.verify(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestNumbersOnTheirWayAreFilled: the relay has ended while Kafka had a later
// number than the stored position, and not an earlier one.
func TestNumbersOnTheirWayAreFilled(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	w.write(w.event("a", 1))
	w.waitRecords(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	events := []outbox.Event{w.event("b", 1), w.event("c", 1), w.event("d", 1)}
	w.write(events...)
	w.produce(events[1], 3) // of 2, 3 and 4, Kafka has got 3
	report := w.recover(true)
	if report.Holes != 1 || report.Known != 2 || report.Missing != 2 || report.Sequence != 4 {
		t.Errorf("report %+v: want 1 hole, 2 known, 2 missing, sequence 4", report)
	}
	stop = w.start()
	w.write(w.event("a", 2))
	w.verify(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestAPackedRowPublishedInPart: the relay has ended between two events of a
// row.
func TestAPackedRowPublishedInPart(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	w.write(w.event("a", 1))
	w.waitRecords(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	events := []outbox.Event{w.event("b", 1), w.event("b", 2), w.event("c", 1)}
	w.writeAs(outbox.Packed, events...)
	w.produce(events[0], 2)
	if report := w.recover(true); report.Events != 4 || report.Known != 2 || report.Missing != 2 || report.Sequence != 4 {
		t.Errorf("report %+v: want 4 events, 2 known, 2 missing, sequence 4", report)
	}
	stop = w.start()
	w.write(w.event("a", 2))
	w.verify(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestEventsThatKafkaMayHaveDeleted is about a topic whose beginning is gone:
// it is not known what of it was published.
func TestEventsThatKafkaMayHaveDeleted(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	for v := range int64(5) {
		w.write(w.event("a", v+1))
	}
	w.waitRecords(5)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	w.write(w.event("a", 6))
	w.deleteRecords(3)
	report, err := w.recovery(true).Run(t.Context())
	refused, ok := errors.AsType[*recovery.RefusedError](err)
	if !ok || report.Uncertain[w.topic] != 4 {
		t.Fatalf("Run = %v, %+v, want a RefusedError over 4 events", refused, report)
	}
	w.since = w.created(6) // no more than what was written behind
	if report = w.recover(true); report.Missing != 1 {
		t.Errorf("since the sixth: %+v, want it alone", report)
	}
}

// TestMessagesAreNotRecovered: only the table can be read again.
func TestMessagesAreNotRecovered(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	w.write(w.event("a", 1))
	w.waitRecords(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	w.writeAs(outbox.WAL, w.event("m", 1))
	w.write(w.event("a", 2))
	if report := w.recover(true); report.Missing != 1 {
		t.Errorf("report %+v: want the row alone", report)
	}
}

// TestADetachedPartition holds events that the lost slot had not passed.
func TestADetachedPartition(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	stop := w.start()
	w.write(w.event("a", 1))
	w.waitRecords(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	w.exec(`create table outbox_new (like outbox including all)`)
	w.write(w.event("a", 2))
	w.exec(`insert into outbox_new select * from outbox where aggregate_version = 2`)
	w.exec(`delete from outbox where aggregate_version = 2`)
	w.exec(`do $$ begin execute format('comment on table outbox_new is %L',
		'walpost: detached from "public"."outbox"; every slot must pass ' || pg_current_wal_insert_lsn() || ' of system ' || (select system_identifier from pg_control_system()) || ' before it is dropped'); end $$`)
	if report := w.recover(true); report.Missing != 1 || report.Rows != 2 {
		t.Errorf("report %+v: want the detached row", report)
	}
}

// TestADeadLetterIsKnown: an event in the dead-letter topic is not published
// again.
func TestADeadLetterIsKnown(t *testing.T) {
	w := newWorld(t, devstacktest.Database(t))
	w.config.Poison, w.config.DeadLetterTopic = relay.DeadLetter, w.topic+".letters"
	stop := w.start()
	w.exec(`insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload, headers) values ($1, $2, 'user', 'a', 'UserCreated', '', '{"ce_id": "x"}')`,
		outbox.NewID().String(), w.topic)
	w.exec(`insert into outbox (id, topic, aggregate_type, aggregate_id, type, payload) values ($1, '', '', '', 'walpost.envelope', 'broken')`, outbox.NewID().String())
	w.write(w.event("a", 1))
	w.waitRecords(1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.dropSlot()
	if report := w.recover(true); report.Known != 3 || report.Missing != 0 || report.Sequence != 3 {
		t.Errorf("report %+v: want 3 known, none missing", report)
	}
}
