package relay

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/relay/position"
)

// A simulation is a world of one PostgreSQL, one Kafka and the relays between
// them, in a bubble of package synctest. Whatever these would do by chance or
// at the same time its driver does, one thing after another, each once all
// goroutines of the relays have come to rest: which one, the seed says.
type simulation struct {
	base    Config
	metrics *metrics
	plan    simPlan
	random  *rand.Rand // the driver's alone
	began   time.Time

	mu       sync.Mutex // of all that follows
	postgres simPostgres
	kafka    simKafka
	relays   []*simRelay
	calls    []*simCall // in the order of their keys
	late     []*simCall // their callers no longer wait
	writer   simWriter
	ledger   simLedger
	ending   bool // no relay is started any more

	broken  string // the first promise that was
	tracing bool
	trace   []string
	said    []string // since the driver's last step
}

// A simCall is a call of a relay that waits for a server.
type simCall struct {
	relay    *simRelay
	key      int // of its connection, and what it asks
	what     string
	kafka    bool         // PostgreSQL else
	producer *simProducer // of Kafka's
	ready    func() bool  // nil: at once
	serve    func() error // what the server does
	late     bool         // it may do it when the caller no longer waits

	served bool
	gone   bool // the caller
	err    error
	reply  chan error
}

// call waits for the driver to do c, which it does in two steps: a crash or a
// timeout may come between the deed and the answer.
func (s *simulation) call(ctx context.Context, c *simCall) error {
	s.mu.Lock()
	if c.relay.dead {
		s.mu.Unlock()
		return errSimDead
	}
	c.reply = make(chan error, 1)
	at, _ := slices.BinarySearchFunc(s.calls, c.key, func(c *simCall, key int) int { return cmp.Compare(c.key, key) })
	s.calls = slices.Insert(s.calls, at, c)
	s.mu.Unlock()
	select {
	case err := <-c.reply:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(c)
	return context.Cause(ctx)
}

// forget ends the wait of c. What it asks may still be on its way.
func (s *simulation) forget(c *simCall) {
	s.calls = slices.DeleteFunc(s.calls, func(other *simCall) bool { return other == c })
	c.gone = true
	if c.late && !c.served {
		s.late = append(s.late, c)
	}
}

// A simRelay is a process with a relay.
type simRelay struct {
	sim    *simulation
	id     int
	relay  *Relay
	cancel context.CancelFunc
	died   chan struct{}

	connections int // so far

	dead     bool
	returned bool
	err      error
	stopping bool
	asked    time.Time // to stop

	noPostgres, noKafka bool // it is cut off, without a word
}

func (r *simRelay) String() string { return fmt.Sprintf("relay %d", r.id) }

// start starts a relay.
func (s *simulation) start() {
	cfg := s.base
	cfg.Delivery = s.plan.deliveries[s.random.IntN(len(s.plan.deliveries))]
	cfg.Poison = s.plan.poison
	cfg.TransactionRecords = 1 + s.random.IntN(12)
	cfg.MaxBufferBytes = 4000 + s.random.Int64N(20000)
	r := &simRelay{sim: s, id: len(s.relays), died: make(chan struct{})}
	cfg.Log = slog.New(slog.DiscardHandler)
	if s.tracing {
		cfg.Log = slog.New(simLogHandler{r})
	}
	r.relay = &Relay{cfg: cfg, outside: simOutside{r}, metrics: s.metrics}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	s.relays = append(s.relays, r)
	s.say("%v starts, %s", r, cfg.Delivery)
	go func() {
		err := r.relay.Run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		r.returned, r.err = true, err
	}()
}

// crash ends r at once: nothing it does from now on has an effect, and what it
// had on its way may arrive or not.
func (s *simulation) crash(r *simRelay) {
	s.say("%v crashes", r)
	r.dead = true
	close(r.died)
	for _, p := range s.kafka.producers {
		if p.relay == r && !p.closed {
			p.abandon()
		}
	}
	for _, d := range s.postgres.databases {
		if d.relay == r {
			d.left = true
			if d.taken != nil {
				d.taken.left = true
			}
		}
	}
	for _, c := range slices.Clone(s.calls) {
		if c.relay == r {
			s.forget(c)
			c.reply <- errSimDead
			s.unlocked(func() {})
		}
	}
	if a := s.postgres.active; a != nil && a.relay == r {
		a.wake()
		s.unlocked(func() {})
	}
	s.unlocked(r.cancel)
	for _, d := range s.postgres.databases { // a stream that the server has ended already
		if d.relay == r && d.taken != nil {
			d.taken.wake()
			s.unlocked(func() {})
		}
	}
}

// unlocked runs f and waits until what it has set off has come to rest.
func (s *simulation) unlocked(f func()) {
	s.mu.Unlock()
	f()
	synctest.Wait()
	s.mu.Lock()
}

// say puts a line into the trace.
func (s *simulation) say(format string, args ...any) {
	if s.tracing {
		s.said = append(s.said, fmt.Sprintf(format, args...))
	}
}

// violated says which promise is broken.
func (s *simulation) violated(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	s.say("BROKEN: %s", what)
	if s.broken == "" {
		s.broken = what
	}
}

// rest writes down what was said since the last step. Goroutines that went on
// side by side have said it in any order.
func (s *simulation) rest() {
	slices.Sort(s.said)
	at := time.Since(s.began)
	for _, line := range s.said {
		s.trace = append(s.trace, fmt.Sprintf("%12v %s", at, line))
	}
	s.said = s.said[:0]
}

// A simOutside is the [outside] of one relay.
type simOutside struct{ relay *simRelay }

func (o simOutside) database(ctx context.Context) (database, error) {
	s := o.relay.sim
	s.mu.Lock()
	o.relay.connections++
	d := &simDatabase{sim: s, relay: o.relay, number: o.relay.id<<12 | o.relay.connections, heard: time.Now()}
	s.mu.Unlock()
	err := d.ask(ctx, 0, "connect", nil, func() error {
		if s.postgres.down {
			return errSimLost
		}
		s.postgres.databases = append(s.postgres.databases, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (o simOutside) kafka(transactional string, t *topics) (producer, positions, *kgo.Client, error) {
	s := o.relay.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	o.relay.connections++
	t.known, t.maxBytes = make(map[string]int64), make(map[string]int32)
	for _, topic := range simTopics() {
		t.known[topic], t.maxBytes[topic] = 10_000, 10_000
	}
	p := &simProducer{sim: s, relay: o.relay, number: o.relay.id<<12 | o.relay.connections, topics: t, transactional: transactional != ""}
	at, _ := slices.BinarySearchFunc(s.kafka.producers, p.number, func(p *simProducer, n int) int { return p.number - n })
	s.kafka.producers = slices.Insert(s.kafka.producers, at, p)
	return p, &simPositions{producer: p, store: position.Store{Topic: s.base.PositionsTopic, Source: s.base.Source}}, nil, nil
}

func (o simOutside) fence(ctx context.Context, _ string) error {
	s := o.relay.sim
	s.mu.Lock()
	o.relay.connections++
	p := &simProducer{sim: s, relay: o.relay, number: o.relay.id<<12 | o.relay.connections}
	s.mu.Unlock()
	_, _, err := p.ProducerID(ctx)
	return err
}

// A simLogHandler puts what a relay logs into the trace.
type simLogHandler struct{ relay *simRelay }

func (h simLogHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h simLogHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h simLogHandler) WithGroup(string) slog.Handler            { return h }

func (h simLogHandler) Handle(_ context.Context, r slog.Record) error {
	s := h.relay.sim
	line := fmt.Sprintf("%v logs: %s", h.relay, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if !h.relay.dead {
		s.say("%s", line)
	}
	return nil
}
