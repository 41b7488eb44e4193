package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
)

// A session is one unbroken run of the stream: whatever fails ends it, and the
// next one goes on from the stored position.
type session struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	outside outside
	fail    context.CancelCauseFunc // ends the session; the first cause counts
	give    context.CancelCauseFunc // gives up what is on its way too
	failed  atomic.Bool             // a record was refused: nothing behind it may be waited for

	database  database
	stream    stream
	producer  producer
	positions positions
	admin     *kgo.Client // for topics
	publisher publisher
	topics    topics
	judge     judge
	budget    budget
	tracker   tracker

	// The reader's.
	state    slot.State
	router   router
	layouts  map[uint32]*layout // by the table's OID
	columns  []pgoutput.Column
	held     hold
	row      row
	checked  envelope.Event // reused by check
	open     *transaction   // nil between two
	sequence int64          // of the last record made

	// What others look at.
	canaries *canaries
	tracing  *tracing
	brake    *brake
	seen     atomic.Uint64         // LSN up to which whole transactions are read
	heard    atomic.Int64          // Unix time in ns of the last keepalive
	probe    atomic.Pointer[probe] // see spot

	from  position.Position // where the session began, and what its positions share
	saved atomic.Uint64     // LSN of the last stored position
	told  chan struct{}     // asks the confirmer to tell PostgreSQL now

	began  time.Time    // the stream
	leased atomic.Int64 // since began: when guard asked for its last answer
}

// errGrace is why what is on its way is given up while the slot is still this
// relay's.
var errGrace = errors.New("the time for what is on its way is over")

// session runs one session until parent ends or something fails.
//
// Three contexts are at work. ctx is the reader's and ends with parent or by a
// failure. What is on its way to Kafka then may go on, until late ends: after
// StopGrace, or at once when the slot may be another relay's. PostgreSQL is kept
// informed until all that is over.
func (r *Relay) session(parent context.Context) (err error) {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	late, give := context.WithCancelCause(context.WithoutCancel(parent))
	defer give(nil)
	s := &session{
		cfg: r.cfg, log: r.cfg.Log, metrics: r.metrics, outside: r.outside, fail: fail, give: give,
		budget:  budget{limit: r.cfg.MaxBufferBytes},
		layouts: make(map[uint32]*layout),
		told:    make(chan struct{}, 1),

		canaries: r.canaries, tracing: newTracing(r.cfg.Tracer), brake: &r.brake,
	}
	s.judge.begin(&r.lessons)
	defer s.judge.stop()
	s.topics = topics{cfg: r.cfg, refused: s.judge.stop, lessons: &r.lessons}
	s.producer, s.positions, s.admin, err = r.outside.kafka(s.transactional(), &s.topics)
	if err != nil {
		return err
	}
	quiet := sync.OnceFunc(s.producer.Close)
	defer quiet()
	s.database, err = r.outside.database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.database.close(context.WithoutCancel(ctx))) }()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if s.cfg.Poison == DeadLetter {
		if _, err := s.topics.ensure(ctx, s.admin, s.cfg.DeadLetterTopic); err != nil {
			return errors.Join(err, s.stream.Close())
		}
	}
	defer r.metrics.watch(s)()
	r.streaming.Store(true)
	s.log.InfoContext(ctx, "streaming", slog.String("slot", s.cfg.Slot), slog.String("source", s.cfg.Source),
		slog.Any("position", s.from.End), slog.Int64("sequence", s.from.Sequence), slog.Int64("generation", s.from.Generation))

	keeping, release := context.WithCancel(context.WithoutCancel(parent))
	var keepers errgroup.Group
	keep := func(work func(context.Context) error) {
		keepers.Go(func() error {
			err := work(keeping)
			if err != nil {
				fail(err)
				give(err)
			}
			return err
		})
	}
	group, ctx := errgroup.WithContext(ctx)
	interrupt := context.AfterFunc(ctx, s.stream.Interrupt)
	keep(s.confirm)
	keep(s.guard)
	keep(func(keeping context.Context) error { return s.grace(ctx, keeping) })
	group.Go(func() error { return s.read(ctx) })
	group.Go(func() error { return s.publisher.run(ctx, late) })
	err = group.Wait()
	interrupt()
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil && !errors.Is(cause, context.Canceled) {
		err = cause // a refused record is why the reader was interrupted
	}
	s.finish(late)
	quiet() // before the slot can be another relay's
	r.streaming.Store(false)
	release()
	if kept := keepers.Wait(); err == nil {
		err = kept
	}
	s.leave(context.WithoutCancel(ctx))
	return err
}

// grace waits for working to end, and then for StopGrace.
func (s *session) grace(working, ctx context.Context) error {
	select {
	case <-working.Done():
	case <-ctx.Done():
		return nil
	}
	timer := time.NewTimer(s.cfg.StopGrace)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.give(errGrace)
	case <-ctx.Done():
	}
	return nil
}

// finish brings to an end what is on its way.
func (s *session) finish(late context.Context) {
	if s.open != nil {
		s.publisher.interrupted(s.open)
	}
	if err := s.publisher.finish(late); err != nil {
		s.log.WarnContext(late, "the last position could not be stored; expect duplicates", slog.Any("error", err))
	}
}

// leave confirms what is stored and gives the slot back. Both fail where the
// connection was lost, which the session says already; what is not confirmed
// here is known from the stored position.
func (s *session) leave(ctx context.Context) {
	if err := s.stream.Confirm(lsn.Pos(s.saved.Load()), false); err != nil {
		s.log.DebugContext(ctx, "last confirm failed", slog.Any("error", err))
	}
	if err := s.stream.Close(); err != nil {
		s.log.DebugContext(ctx, "closing the stream failed", slog.Any("error", err))
	}
}

// transactional is the id of the producer of transactions, which is the
// source's: whoever has it last is the only one to publish.
func (s *session) transactional() string {
	if s.cfg.Delivery == ExactlyOnce {
		return transactionalID(s.cfg.Source)
	}
	return ""
}

func transactionalID(source string) string { return "relay." + source }
