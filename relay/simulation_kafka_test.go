package relay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/position"
)

// The topics of the simulation: those of events first, each with simPartitions
// partitions, then those of the relay, with one.
const (
	simDataTopics   = 2
	simPartitions   = 2
	simLetters      = simDataTopics * simPartitions
	simPositionsLog = simLetters + 1
	simLogs         = simPositionsLog + 1
)

func simTopics() [simDataTopics + 2]string {
	return [...]string{"things", "others", DefaultDeadLetterTopic, position.DefaultTopic}
}

// simLog gives the partition that a record goes to.
func simLog(r *kgo.Record) int {
	topics := simTopics()
	switch r.Topic {
	case topics[simDataTopics]:
		return simLetters
	case topics[simDataTopics+1]:
		return simPositionsLog
	case topics[1]:
		return simPartitions + int(r.Key[len(r.Key)-1])%simPartitions
	}
	return int(r.Key[len(r.Key)-1]) % simPartitions
}

// A simRecord is a record in Kafka, in a transaction or outside of any.
type simRecord struct {
	event    *simEvent // nil: it is a position
	position position.Position
	log      int
	tx       *simTransaction
}

// A simTransaction is a transaction of Kafka.
type simTransaction struct {
	began     time.Time
	records   []*simRecord
	decided   bool // it will be committed, whatever happens
	committed bool // and is, for those who read committed records
	aborted   bool
}

// A simKafka is a cluster.
type simKafka struct {
	sim  *simulation
	down bool

	positions []*simRecord // the positions topic

	// Of the one transactional id.
	epoch      int
	open       *simTransaction
	completing *simTransaction

	producers []*simProducer
	orphans   []*simOrphan
}

// A simOrphan is what a client that is gone had on its way to a partition.
type simOrphan struct {
	producer *simProducer
	log      int
	batches  []*simBatch
	until    time.Time
}

// initialize is InitProducerID: it ends the open transaction, and what has the
// epoch from before can do no more.
func (k *simKafka) initialize() int {
	k.abort()
	k.epoch++
	return k.epoch
}

func (k *simKafka) abort() {
	if k.open != nil {
		k.open.aborted = true
		k.open = nil
	}
}

// decide commits the open transaction. Who reads committed records sees it
// when complete has been called.
func (k *simKafka) decide() {
	tx := k.open
	k.open = nil
	k.epoch++
	if tx == nil {
		return
	}
	tx.decided = true
	k.completing = tx
	for _, r := range tx.records {
		if r.event != nil {
			k.sim.settled(r)
		}
	}
	for _, r := range tx.records { // they arrived side by side
		if r.event == nil {
			k.sim.settled(r)
		}
	}
}

func (k *simKafka) complete() {
	k.completing.committed = true
	k.completing = nil
}

// append takes a batch or refuses it.
func (k *simKafka) append(p *simProducer, log int, b *simBatch) error {
	if p.transactional {
		if p.epoch == 0 { // the client asks with its first batch
			p.epoch = k.initialize()
		}
		if p.epoch != k.epoch {
			return kerr.InvalidProducerEpoch
		}
	}
	if b.behind {
		return kerr.OutOfOrderSequenceNumber
	}
	if b.fails == 1 {
		return kerr.UnknownServerError
	}
	for _, r := range b.records {
		if e := r.event; e != nil && e.poison && log != simLetters {
			return kerr.InvalidRecord
		}
	}
	b.stored = true
	for _, pending := range b.records {
		r := &simRecord{event: pending.event, position: pending.position, log: log}
		if p.transactional {
			if k.open == nil {
				k.open = &simTransaction{began: time.Now()}
			}
			r.tx = k.open
			k.open.records = append(k.open.records, r)
		}
		if r.event == nil {
			k.positions = append(k.positions, r)
		}
		if r.tx == nil {
			k.sim.settled(r)
		}
	}
	if b.fails > 0 { // it has it, and does not say so
		return kerr.UnknownServerError
	}
	return nil
}

// load gives the last position that counts.
func (k *simKafka) load() (p position.Position, found bool) {
	if n := len(k.positions); n > 0 {
		p.Transactional = k.positions[n-1].tx != nil
	}
	for _, r := range slices.Backward(k.positions) {
		if r.tx == nil || r.tx.committed {
			transactional := p.Transactional
			p = r.position
			p.Transactional = transactional
			return p, true
		}
	}
	return p, false
}

// expire loses what relays that are gone had on their way to the positions: r
// has the lock or the slot. At least once rests on this order of events.
func (k *simKafka) expire(r *simRelay) {
	for _, o := range k.orphans {
		if o.producer.relay != r && o.log == simPositionsLog {
			o.batches = nil
		}
	}
}

// A simPositions is a [positions].
type simPositions struct {
	producer *simProducer
	store    position.Store
}

func (s *simPositions) Prepare(ctx context.Context) error {
	return s.producer.ask(ctx, 1, "prepare positions", nil, func() error { return nil })
}

func (s *simPositions) Load(ctx context.Context) (p position.Position, found bool, err error) {
	k := &s.producer.sim.kafka
	err = s.producer.ask(ctx, 2, "load the position", nil, func() error {
		p, found = k.load()
		s.producer.sim.say("%v is to read sequence %d, end %v", s.producer.relay, p.Sequence, p.End)
		return nil
	})
	return p, found, err
}

func (s *simPositions) Save(ctx context.Context, p position.Position) error {
	record, err := s.Record(p)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	s.producer.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) { done <- err })
	select {
	case err = <-done:
	case <-s.producer.relay.died:
		err = errSimDead
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("save position %v: %w", p.End, err)
	}
	return nil
}

func (s *simPositions) Record(p position.Position) (*kgo.Record, error) { return s.store.Record(p) }
