package relay

import (
	"time"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// acts gives what may happen next, always in the same order.
func (s *simulation) acts() []simAct {
	var acts []simAct
	add := func(weight int, do func()) { acts = append(acts, simAct{weight, do}) }
	s.callActs(add)
	s.postgresActs(add)
	s.kafkaActs(add)
	if s.postgres.opened && s.plan.commits > 0 {
		add(8, s.commit)
	}
	if alive := len(s.alive()); !s.ending && alive == 0 || alive < s.plan.relays && s.plan.faults > 0 {
		add(2, s.start)
	}
	if s.postgres.down {
		add(1, func() { s.say("PostgreSQL is up"); s.postgres.down = false })
	}
	if s.kafka.down {
		add(1, func() { s.say("Kafka is up"); s.kafka.down = false })
	}
	for _, r := range s.relays {
		if !r.dead && !r.returned && (r.noPostgres || r.noKafka) {
			add(1, func() { s.say("%v is not cut off any more", r); r.noPostgres, r.noKafka = false, false })
		}
	}
	return acts
}

func (s *simulation) callActs(add func(int, func())) {
	for _, c := range s.calls {
		if c.kafka && (s.kafka.down || c.relay.noKafka) || !c.kafka && c.relay.noPostgres {
			continue
		}
		if !c.served && (c.ready == nil || c.ready()) {
			add(20, func() {
				c.served, c.err = true, c.serve()
				s.say("%v: %s: %v", c.relay, c.what, c.err)
				if s.random.IntN(3) > 0 {
					s.answer(c)
				}
			})
		}
		if c.served {
			add(20, func() { s.answer(c) })
		}
	}
	for i, c := range s.late {
		if s.kafka.down {
			break
		}
		add(2, func() {
			if s.random.IntN(2) == 0 && c.ready() {
				s.say("%v, late: %s: %v", c.relay, c.what, c.serve())
			}
			s.late = append(s.late[:i:i], s.late[i+1:]...)
		})
	}
}

func (s *simulation) answer(c *simCall) {
	s.forget(c)
	c.reply <- c.err
}

func (s *simulation) postgresActs(add func(int, func())) {
	p := &s.postgres
	if p.exists && p.kept != p.confirmed {
		add(1, func() { s.say("checkpoint, confirmed %v", p.confirmed); p.kept = p.confirmed })
	}
	for _, d := range p.databases {
		if d.relay.noPostgres {
			continue
		}
		if d.left && !d.lost {
			add(5, func() { s.say("PostgreSQL sees that %v has left", d.relay); p.endDatabase(d) })
		}
		if t := d.taken; t != nil && t.lost != nil && t.broken == nil && !t.left && !t.relay.dead {
			add(10, func() {
				s.say("%v sees that its stream is lost", d.relay)
				t.broken = t.lost
				t.wake()
			})
		}
	}
	t := p.active
	if t == nil || t.relay.noPostgres {
		return
	}
	if len(t.statuses) > 0 {
		add(10, func() {
			s.say("PostgreSQL hears %v from %v", t.statuses[0], t.relay)
			t.hear()
		})
	}
	if t.left {
		add(5, func() { s.say("PostgreSQL sees that %v has left its stream", t.relay); p.endStream(t, errSimLost) })
		return
	}
	if t.waiting == nil && len(t.messages) >= 3 || t.waiting != nil && len(t.messages) > 0 {
		return
	}
	if t.next < len(p.log) {
		add(40, func() { t.send(false) })
	}
	weight := 2
	if t.asked {
		weight = 10
	}
	add(weight, func() { t.send(true) })
}

func (s *simulation) kafkaActs(add func(int, func())) {
	k := &s.kafka
	if k.down {
		return
	}
	if k.completing != nil {
		add(5, func() { s.say("the transaction is seen"); k.complete() })
	}
	for _, o := range k.orphans {
		if len(o.batches) == 0 || o.producer.transactional && k.completing != nil {
			continue
		}
		add(1, func() {
			if s.random.IntN(4) == 0 {
				o.batches = nil
				return
			}
			b := o.batches[0]
			o.batches = o.batches[1:]
			err := k.append(o.producer, o.log, b)
			s.say("%d records of %v arrive late at partition %d: %v", len(b.records), o.producer.relay, o.log, err)
			if err != nil {
				o.batches = nil
			}
		})
	}
	for _, p := range k.producers {
		if p.closed || p.relay.dead || p.relay.noKafka {
			continue
		}
		for log := range p.queues {
			s.queueActs(add, p, log)
		}
	}
}

func (s *simulation) queueActs(add func(int, func()), p *simProducer, log int) {
	q, weight := &p.queues[log], s.plan.weights[log]
	if len(q.records) > 0 {
		if p.failed != nil || q.records[0].ctx.Err() != nil {
			add(20, func() { p.canceled(log) })
		} else if len(q.batches) < 5 && (len(q.batches) == 0 || q.batches[len(q.batches)-1].answer == nil || s.random.IntN(2) == 0) {
			add(2*weight, func() { p.send(log) })
		}
	}
	if len(q.batches) == 0 {
		return
	}
	if q.batches[0].arrived {
		add(weight, func() { p.answered(log) })
	}
	for _, b := range q.batches {
		if b.arrived {
			continue
		}
		if !p.transactional || s.kafka.completing == nil {
			add(weight, func() {
				p.arrive(log, b)
				if b.answer == nil {
					s.say("Kafka takes %s of %v for partition %d", b.text(), p.relay, log)
				}
			})
		}
		break
	}
}

// commit has somebody commit a transaction, or leave something else in the log.
func (s *simulation) commit() {
	p, random := &s.postgres, s.random
	s.plan.commits--
	s.writer.now = time.Now()
	commit := p.end
	if random.IntN(2) == 0 { // else it follows the one before directly
		commit += lsn.Pos(8 * (1 + random.IntN(60)))
	}
	end := commit + lsn.Pos(8*(1+random.IntN(5)))
	c := (*simCommit)(nil)
	if random.IntN(10) == 0 {
		c = s.writer.stray(commit, end)
	} else {
		c = s.writer.write(commit-0x800, commit, end, s.plan.poisonIn)
	}
	p.log = append(p.log, c)
	s.committed(c)
	if p.end = end; random.IntN(3) == 0 { // something else is in the log behind it
		p.end += lsn.Pos(8 * random.IntN(40))
	}
	if s.tracing {
		s.say("transaction %v to %v commits with %d events, to sequence %d", c.commit, c.end, len(c.events), len(s.ledger.events))
	}
}
