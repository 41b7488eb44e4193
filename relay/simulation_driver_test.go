package relay

import (
	"errors"
	"slices"
	"testing/synctest"
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// A simPlan is what a seed has in store.
type simPlan struct {
	deliveries []Delivery
	poison     Poison
	poisonIn   int  // of so many events one is refused; 0: none
	once       bool // no event may be in Kafka twice
	calm       bool // nothing fails; relays are only told to stop
	relays     int  // side by side, at the most
	commits    int  // still to be written
	faults     int  // still to come
	failures   int  // of batches
	weights    [simLogs]int
}

// newPlan draws what is in store.
func (s *simulation) newPlan() {
	p, random := &s.plan, s.random
	switch random.IntN(5) {
	case 0, 1:
		p.deliveries = []Delivery{AtLeastOnce}
	case 2, 3:
		p.deliveries, p.once = []Delivery{ExactlyOnce}, true
	default:
		p.deliveries = []Delivery{AtLeastOnce, ExactlyOnce}
	}
	p.poison = Halt
	if random.IntN(2) == 0 {
		p.poison = DeadLetter
	}
	p.relays, p.commits, p.faults = 1+random.IntN(2), 4+random.IntN(14), random.IntN(9)
	if random.IntN(4) == 0 {
		p.poisonIn = 8 + random.IntN(20)
	}
	if random.IntN(3) == 0 {
		p.failures = 1 + random.IntN(3)
	}
	if random.IntN(8) == 0 {
		p.calm, p.once, p.failures, p.poisonIn = true, true, 0, 0
	}
	for i := range p.weights {
		p.weights[i] = 1 + random.IntN(12)
	}
	s.postgres.forward = random.IntN(2) == 0
	s.postgres.end = lsn.Pos(0x1000 + 8*random.IntN(100))
	s.base.ConfirmEvery = time.Duration(1+random.IntN(200))*time.Millisecond + 7
	s.base.TransactionEvery = time.Duration(1+random.IntN(20))*time.Millisecond + 3
	s.base.SenderTimeout = time.Duration(3+random.IntN(12))*time.Second + 11
	s.base.StopGrace = time.Duration(1+random.IntN(9))*time.Second + 13
	if p.calm {
		s.base.StopGrace = time.Minute
	}
	s.writer = simWriter{random: random, now: s.began}
}

// Limits of a simulation. A relay that is told to stop waits for StopGrace,
// and then for its last position, or to abort.
const (
	simStormSteps = 1500
	simSteps      = 4000
	simTime       = 5 * time.Minute
	simStop       = 6 * time.Second
)

// drive runs the simulation. It returns when every relay has returned.
func (s *simulation) drive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newPlan()
	s.start()
	s.unlocked(func() {})
	for n := 0; s.broken == "" && n < simStormSteps && (s.plan.commits > 0 || s.plan.faults > 0); n++ {
		s.step()
	}
	s.say("from now on nothing fails")
	s.plan.faults, s.plan.failures = 0, 0
	s.postgres.down, s.kafka.down = false, false
	for _, r := range s.relays {
		r.noPostgres, r.noKafka = false, false
	}
	for n := 0; s.broken == "" && !s.complete(); n++ {
		if n > simSteps || time.Since(s.began) > simTime {
			s.violated("not everything is published and confirmed: %d of %d transactions, confirmed %v", s.published(), len(s.postgres.log), s.postgres.confirmed)
		}
		s.step()
	}
	s.rest()
	if s.broken != "" {
		s.abandon()
		return
	}
	s.ending = true
	for _, r := range s.relays {
		s.stop(r)
	}
	for s.broken == "" && !s.returned() {
		s.step()
	}
	s.rest()
	if s.broken != "" {
		s.abandon()
	}
}

func (s *simulation) returned() bool {
	return !slices.ContainsFunc(s.relays, func(r *simRelay) bool { return !r.returned })
}

// abandon ends all relays after a promise was broken.
func (s *simulation) abandon() {
	for _, r := range s.relays {
		if !r.dead {
			s.crash(r)
		}
	}
	for range 100 {
		if s.returned() {
			return
		}
		s.sleep(time.Second)
	}
}

// complete says that all that has committed is in Kafka and confirmed.
func (s *simulation) complete() bool {
	log := s.postgres.log
	return s.plan.commits == 0 && s.published() == len(log) && s.kafka.completing == nil && s.postgres.opened &&
		(len(log) == 0 || s.postgres.confirmed > log[len(log)-1].commit)
}

// stop tells r to stop.
func (s *simulation) stop(r *simRelay) {
	if r.dead || r.returned || r.stopping {
		return
	}
	s.say("%v is told to stop", r)
	r.stopping, r.asked = true, time.Now()
	s.unlocked(r.cancel)
}

// sleep lets time pass.
func (s *simulation) sleep(d time.Duration) {
	s.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	s.mu.Lock()
	s.rest()
}

// A simAct is something that may happen next.
type simAct struct {
	weight int
	do     func()
}

// step lets one thing happen, and mostly some time pass.
func (s *simulation) step() {
	s.expire()
	acts, total := s.acts(), 0
	for _, a := range acts {
		total += a.weight
	}
	if total > 0 {
		n := s.random.IntN(total)
		for _, a := range acts {
			if n -= a.weight; n < 0 {
				a.do()
				s.unlocked(func() {})
				break
			}
		}
	}
	s.rest()
	if s.plan.faults > 0 && s.random.IntN(40) == 0 {
		s.plan.faults--
		s.fault()
		s.unlocked(func() {})
		s.rest()
	}
	for _, r := range s.relays {
		s.look(r)
	}
	switch n := s.random.IntN(1000); {
	case total == 0 || n < 15:
		s.sleep(time.Duration(s.random.Int64N(int64(200 * time.Millisecond))))
	case n < 18 && !s.plan.calm:
		s.sleep(time.Duration(s.random.Int64N(int64(6 * time.Second))))
	case n < 300:
		s.sleep(time.Duration(s.random.Int64N(int64(3 * time.Millisecond))))
	}
}

// look sees whether r has returned, and as it should.
func (s *simulation) look(r *simRelay) {
	switch {
	case r.dead:
	case !r.returned && r.stopping && time.Since(r.asked) > s.base.StopGrace+simStop:
		s.violated("%v was told to stop %v ago, and has not", r, time.Since(r.asked))
	case r.returned && r.stopping && r.err != nil:
		s.violated("%v was told to stop, and says: %v", r, r.err)
	case r.returned && !r.stopping:
		r.stopping = true
		bad, ok := errors.AsType[*RecordError](r.err)
		if !ok || s.plan.poison == DeadLetter || s.ledger.byName[bad.ID] == nil || !s.ledger.byName[bad.ID].poisoned {
			s.violated("%v has stopped by itself: %v", r, r.err)
			return
		}
		s.say("event %d is mended, in front of which %v has stopped", s.ledger.byName[bad.ID].sequence, r)
		s.ledger.byName[bad.ID].poison, r.err = false, nil
	}
}

// expire does what servers do when their time is over.
func (s *simulation) expire() {
	now := time.Now()
	s.postgres.expire(now, s.base.SenderTimeout)
	if tx := s.kafka.open; tx != nil && !s.kafka.down && now.Sub(tx.began) > transactionTimeout {
		s.say("Kafka gives up the open transaction")
		s.kafka.initialize()
	}
	s.kafka.orphans = slices.DeleteFunc(s.kafka.orphans, func(o *simOrphan) bool { return len(o.batches) == 0 || now.After(o.until) })
	s.kafka.producers = slices.DeleteFunc(s.kafka.producers, func(p *simProducer) bool { return p.closed || p.relay.dead })
	s.postgres.databases = slices.DeleteFunc(s.postgres.databases, func(d *simDatabase) bool {
		return d.left && d.lost && (d.taken == nil || d.taken.lost != nil && (d.taken.left || d.relay.dead))
	})
}

// alive are the relays at work.
func (s *simulation) alive() []*simRelay {
	var alive []*simRelay
	for _, r := range s.relays {
		if !r.dead && !r.returned && !r.stopping {
			alive = append(alive, r)
		}
	}
	return alive
}

// fault lets something fail.
func (s *simulation) fault() {
	alive := s.alive()
	var r *simRelay
	if len(alive) > 0 {
		r = alive[s.random.IntN(len(alive))]
	}
	kind := s.random.IntN(14)
	if s.plan.calm {
		kind = 3
	}
	switch {
	case kind <= 2 && r != nil:
		s.crash(r)
	case kind <= 4 && r != nil:
		s.stop(r)
	case kind == 5 && !s.postgres.down:
		s.say("PostgreSQL crashes, confirmed %v falls back to %v", s.postgres.confirmed, s.postgres.kept)
		s.postgres.crash()
	case kind == 6 && s.postgres.active != nil:
		s.say("the stream of %v is cut", s.postgres.active.relay)
		s.postgres.endStream(s.postgres.active, errSimLost)
	case kind == 7 && s.postgres.held != nil:
		s.say("the connection of %v is cut", s.postgres.held.relay)
		s.postgres.endDatabase(s.postgres.held)
	case kind == 8 && r != nil:
		s.say("%v is cut off from PostgreSQL", r)
		r.noPostgres = true
	case kind == 9:
		s.say("Kafka is down")
		s.kafka.down = true
	case kind == 10 && r != nil:
		s.say("%v is cut off from Kafka", r)
		r.noKafka = true
	case kind == 11:
		for _, c := range s.calls {
			if c.late && !c.gone {
				s.uncertain(c)
				break
			}
		}
	case kind == 12:
		s.say("all stand still")
		s.sleep(time.Duration(s.random.Int64N(int64(25 * time.Second))))
	case len(alive) < s.plan.relays:
		s.start()
	}
}

// uncertain lets the end of a transaction fail without saying how it ended.
func (s *simulation) uncertain(c *simCall) {
	s.say("%v is not told how its transaction ended", c.relay)
	if !c.served && c.ready() && s.random.IntN(2) == 0 {
		c.gone, c.served = true, true
		c.err = c.serve()
	}
	s.forget(c)
	c.reply <- errSimLost
}
