package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/outbox/envelope"
	"github.com/seed-048de892/walpost/relay/lsn"
	"github.com/seed-048de892/walpost/relay/pgoutput"
	"github.com/seed-048de892/walpost/relay/position"
	"github.com/seed-048de892/walpost/relay/slot"
	"github.com/seed-048de892/walpost/relay/wal"
)

// A session is one unbroken run of the stream: whatever fails ends it, and the
// next one goes on from the stored position.
type session struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	fail    context.CancelCauseFunc // ends the session; the first cause counts
	failed  atomic.Bool             // a record was refused: nothing behind it may be waited for

	client  *kgo.Client
	store   *position.Store
	topics  topics
	budget  budget
	tracker tracker
	stream  *wal.Stream

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
	resume   lsn.Pos        // the last transaction published before this session

	// The saver's.
	from  position.Position // where the session began, and what its positions share
	saved atomic.Uint64     // LSN of the last stored position
	told  chan struct{}     // asks the confirmer to tell PostgreSQL now
}

// session runs one session until ctx ends or something fails.
func (r *Relay) session(parent context.Context) (err error) {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	s := &session{
		cfg: r.cfg, log: r.cfg.Log, metrics: r.metrics, fail: fail,
		topics:  topics{partitions: r.cfg.TopicPartitions, replication: r.cfg.TopicReplication},
		budget:  budget{limit: r.cfg.MaxBufferBytes},
		layouts: make(map[uint32]*layout),
		told:    make(chan struct{}, 1),
	}
	options := append([]kgo.Opt{kgo.SeedBrokers(r.cfg.Brokers...), kgo.ClientID("walpost-relay")}, r.cfg.Kafka...)
	s.client, err = kgo.NewClient(append(slices.Clip(options), s.delivery()...)...)
	if err != nil {
		return fmt.Errorf("make the Kafka client: %w", err)
	}
	defer s.client.Close()
	s.store = &position.Store{
		Client: s.client, Options: options,
		Topic: r.cfg.PositionsTopic, Source: r.cfg.Source, Replication: r.cfg.TopicReplication,
	}

	conn, err := pgx.ConnectConfig(ctx, r.pg)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := s.prepare(ctx, conn, r.pg); err != nil {
		return err
	}
	defer r.metrics.watch(s)()
	r.streaming.Store(true)
	s.log.InfoContext(ctx, "streaming", slog.String("slot", s.cfg.Slot), slog.String("source", s.cfg.Source),
		slog.Any("position", s.from.End), slog.Int64("sequence", s.from.Sequence), slog.Int64("generation", s.from.Generation))

	group, ctx := errgroup.WithContext(ctx)
	interrupt := context.AfterFunc(ctx, s.stream.Interrupt)
	group.Go(func() error { return s.read(ctx) })
	group.Go(func() error { return s.save(ctx) })
	group.Go(func() error { return s.confirm(ctx) })
	err = group.Wait()
	interrupt()
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil && !errors.Is(cause, context.Canceled) {
		err = cause // a refused record is why the reader was interrupted
	}
	return s.finish(context.WithoutCancel(parent), err)
}

// delivery are the options that the promises rest on. Records are never given
// up, so memory is bounded by the budget and not by the client.
func (s *session) delivery() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.UnknownTopicRetries(-1), // a topic made a moment ago is not known everywhere
		kgo.StopProducerOnDataLossDetected(),
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(s.topics.batchMaxBytes),
		kgo.ProducerLinger(max(s.cfg.Linger, 0)),
		kgo.MaxBufferedRecords(math.MaxInt32),
		kgo.MetadataMinAge(metadataMinAge),
	}
}

// lastSave bounds the last position's way to Kafka.
const lastSave = 2 * time.Second

// finish waits for the records on their way, stores and confirms what they
// allow, and closes the stream. After a refused record nothing is waited for:
// what is behind it must come again.
func (s *session) finish(ctx context.Context, err error) error {
	if !s.failed.Load() {
		grace, cancel := context.WithTimeout(ctx, s.cfg.StopGrace)
		defer cancel()
		if flushErr := s.client.Flush(grace); flushErr != nil {
			s.log.WarnContext(ctx, "records were still on their way at the end; they come again", slog.Any("error", flushErr))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lastSave) // the flush may have used up its own
	defer cancel()
	done, _ := s.tracker.confirmable()
	if saveErr := s.saveAt(ctx, done); saveErr != nil {
		s.log.WarnContext(ctx, "could not store the last position; expect duplicates", slog.Any("error", saveErr))
	}
	// Both fail where the connection was lost, which err says already; what is
	// not confirmed here is known from the stored position.
	if confirmErr := s.stream.Confirm(lsn.Pos(s.saved.Load()), false); confirmErr != nil {
		s.log.DebugContext(ctx, "last confirm failed", slog.Any("error", confirmErr))
	}
	if closeErr := s.stream.Close(); closeErr != nil {
		s.log.DebugContext(ctx, "closing the stream failed", slog.Any("error", closeErr))
	}
	return err
}
