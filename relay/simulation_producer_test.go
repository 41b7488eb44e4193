package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/position"
)

// A simProducer is a [producer]: the client of a session.
type simProducer struct {
	sim    *simulation
	relay  *simRelay
	number int
	topics *topics

	queues [simLogs]simQueue
	bytes  int64 // buffered, of events
	closed bool
	failed error // its producer id, for good

	transactional bool
	epoch         int // 0: none yet
	within        bool
	uncertain     bool // how the last transaction ended
}

// A simQueue is what is buffered for a partition, in its order.
type simQueue struct {
	batches []*simBatch // on their way
	records []*simPending
}

// A simBatch is what is sent to a partition at once.
type simBatch struct {
	records []*simPending
	arrived bool
	stored  bool
	answer  error
	behind  bool // one that was refused
	fails   int  // the broker will fail it: 1 before it has it, 2 after
	told    bool // the client's log has been
}

// A simPending is a record that is buffered.
type simPending struct {
	record   *kgo.Record
	event    *simEvent
	position position.Position
	ctx      context.Context
	promise  func(*kgo.Record, error)
}

func (p *simProducer) ask(ctx context.Context, order int, what string, ready func() bool, serve func() error) error {
	return p.sim.call(ctx, &simCall{
		relay: p.relay, key: 1<<50 | p.number<<8 | order, what: what, kafka: true, producer: p, ready: ready, serve: serve,
	})
}

// Produce implements producer. It does not wait.
func (p *simProducer) Produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	p.sim.mu.Lock()
	if p.relay.dead {
		p.sim.mu.Unlock()
		return
	}
	if err := p.refuses(); err != nil {
		p.sim.mu.Unlock()
		promise(r, err)
		return
	}
	log := simLog(r)
	pending := &simPending{record: r, ctx: ctx, promise: promise}
	if log == simPositionsLog {
		pending.position = p.sim.readPosition(r)
	} else {
		r.Partition = int32(log % simPartitions)
		pending.event = p.sim.readEvent(p.relay, r, log)
		p.bytes += size(r)
		p.sim.checkBound(p, r)
	}
	p.queues[log].records = append(p.queues[log].records, pending)
	p.sim.mu.Unlock()
}

func (p *simProducer) refuses() error {
	switch {
	case p.closed:
		return kgo.ErrClientClosed
	case p.transactional && !p.within:
		return errors.New("simulated: not in a transaction")
	}
	return p.failed
}

func (p *simProducer) buffered() bool {
	for i := range p.queues {
		if len(p.queues[i].batches)+len(p.queues[i].records) > 0 {
			return true
		}
	}
	return false
}

// Flush implements producer.
func (p *simProducer) Flush(ctx context.Context) error {
	return p.ask(ctx, 3, "flush", func() bool { return !p.buffered() }, func() error { return nil })
}

// Close implements producer. What is on its way may arrive or not.
func (p *simProducer) Close() {
	p.sim.mu.Lock()
	var fail []*simPending
	if !p.closed && !p.relay.dead {
		fail = p.abandon()
	}
	p.sim.mu.Unlock()
	for _, r := range fail {
		r.promise(r.record, kgo.ErrClientClosed)
	}
}

// abandon gives what is buffered, and leaves what is on its way to itself.
func (p *simProducer) abandon() (fail []*simPending) {
	p.closed = true
	for log := range p.queues {
		q := &p.queues[log]
		o := &simOrphan{producer: p, log: log, until: time.Now().Add(2 * time.Second)}
		for _, b := range q.batches {
			fail = append(fail, b.records...)
			if !b.arrived {
				o.batches = append(o.batches, b)
			}
		}
		fail = append(fail, q.records...)
		*q = simQueue{}
		if len(o.batches) > 0 {
			p.sim.kafka.orphans = append(p.sim.kafka.orphans, o)
		}
	}
	return fail
}

// send puts some records of a partition on their way, as one batch.
func (p *simProducer) send(log int) {
	q := &p.queues[log]
	n := 1 + p.sim.random.IntN(min(len(q.records), 4))
	b := &simBatch{records: q.records[:n:n]}
	for _, before := range q.batches {
		b.behind = b.behind || before.answer != nil && !before.stored
	}
	q.records = q.records[n:]
	q.batches = append(q.batches, b)
	p.sim.say("%v sends %s to partition %d", p.relay, b.text(), log)
	if p.sim.plan.failures > 0 && p.sim.random.IntN(150) == 0 {
		p.sim.plan.failures--
		b.fails = 1 + p.sim.random.IntN(2)
	}
}

// arrive has the broker take the next batch of a partition.
func (p *simProducer) arrive(log int, b *simBatch) {
	b.arrived = true
	b.answer = p.sim.kafka.append(p, log, b)
	if b.answer == nil {
		return
	}
	p.sim.say("Kafka refuses %s of %v for partition %d: %v", b.text(), p.relay, log, b.answer)
	for _, behind := range p.queues[log].batches {
		behind.behind = behind.behind || !b.stored && !behind.arrived
	}
}

// answered has the client take the broker's answer to the first batch of a
// partition. Its promises are kept one by one.
func (p *simProducer) answered(log int) {
	q := &p.queues[log]
	b := q.batches[0]
	if b.answer != nil && !b.told {
		b.told = true
		p.sim.say("%v is told that %s is refused", p.relay, b.text())
		if errors.Is(b.answer, kerr.OutOfOrderSequenceNumber) || errors.Is(b.answer, kerr.InvalidProducerEpoch) {
			p.failed = b.answer
			return
		}
		p.sim.unlocked(p.topics.refused)
		return // the promises come later
	}
	p.sim.say("%v has the answer for %s", p.relay, b.text())
	q.batches = q.batches[1:]
	for _, r := range b.records {
		p.keep(r, b.answer)
	}
}

// keep calls the promise of r.
func (p *simProducer) keep(r *simPending, err error) {
	if r.event != nil {
		p.bytes -= size(r.record)
	}
	p.sim.unlocked(func() { r.promise(r.record, err) })
}

// canceled fails the records at the front of a partition that have not been
// sent and no longer may be.
func (p *simProducer) canceled(log int) bool {
	q := &p.queues[log]
	if len(q.records) == 0 {
		return false
	}
	err := p.failed
	if err == nil {
		err = q.records[0].ctx.Err()
	}
	if err == nil {
		return false
	}
	r := q.records[0]
	q.records = q.records[1:]
	p.keep(r, err)
	return true
}

// ProducerID implements producer.
func (p *simProducer) ProducerID(ctx context.Context) (id int64, epoch int16, err error) {
	k := &p.sim.kafka
	err = p.ask(ctx, 4, "fence", func() bool { return k.completing == nil }, func() error {
		p.epoch = k.initialize()
		return nil
	})
	return 1, int16(p.epoch), err
}

// BeginTransaction implements producer.
func (p *simProducer) BeginTransaction() error {
	p.sim.mu.Lock()
	defer p.sim.mu.Unlock()
	switch {
	case p.relay.dead:
		return errSimDead
	case p.within:
		return errors.New("simulated: in a transaction already")
	case p.failed != nil:
		return p.failed
	}
	p.within = true
	return nil
}

// EndTransaction implements producer.
func (p *simProducer) EndTransaction(ctx context.Context, commit kgo.TransactionEndTry) error {
	k := &p.sim.kafka
	p.sim.mu.Lock()
	within, failed, uncertain := p.within, p.failed, p.uncertain
	p.sim.mu.Unlock()
	switch {
	case !within:
		return nil
	case bool(commit) && failed != nil:
		return kerr.OperationNotAttempted
	case bool(commit) && uncertain:
		return errors.New("simulated: nobody knows how the last one ended")
	}
	what := "abort"
	if commit {
		what = "commit"
	}
	asked := p.epoch
	c := &simCall{relay: p.relay, key: 1<<50 | p.number<<8 | 5, what: what, kafka: true, producer: p}
	c.ready = func() bool { return k.completing == nil }
	c.serve = func() error {
		if asked != k.epoch {
			if uncertain {
				return nil // it has ended
			}
			return kerr.ProducerFenced
		}
		if commit {
			k.decide()
		} else {
			k.abort()
			k.epoch++
		}
		if !c.gone {
			p.epoch = k.epoch
		}
		return nil
	}
	c.late = bool(commit)
	err := p.sim.call(ctx, c)
	p.sim.mu.Lock()
	defer p.sim.mu.Unlock()
	if p.within = err != nil; err != nil {
		p.uncertain = true
	}
	return err
}

// AbortBufferedRecords implements producer.
func (p *simProducer) AbortBufferedRecords(ctx context.Context) error {
	p.sim.mu.Lock()
	var fail []*simPending
	if !p.relay.dead && !p.closed {
		fail = p.abandon()
		p.closed = false
	}
	p.sim.mu.Unlock()
	for _, r := range fail {
		r.promise(r.record, kgo.ErrAborting)
	}
	return ctx.Err()
}

// text names what is in b.
func (b *simBatch) text() string {
	if len(b.records) == 0 {
		return ""
	}
	text := ""
	for _, r := range b.records {
		if r.event == nil {
			text += fmt.Sprintf(" position %d at %v", r.position.Sequence, r.position.End)
			continue
		}
		text += fmt.Sprintf(" %d", r.event.sequence)
	}
	return text[1:]
}
