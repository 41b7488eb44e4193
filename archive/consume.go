package archive

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commitTimeout bounds a commit, which also runs after the context has ended:
// what is written need not come again.
const commitTimeout = 5 * time.Second

// commitAgainAfter is how soon a failed commit is tried again when no new
// records come.
const commitAgainAfter = time.Second

// A consumer reads, has its records written, and commits. Rebalances wait
// while records are in hand, so a partition never moves between reading a
// record and committing its offset.
type consumer struct {
	client  *kgo.Client
	cfg     Config
	metrics *metrics
	offsets offsets
	batch   []*kgo.Record
}

func newConsumer(a *Archive) (*consumer, error) {
	c := &consumer{cfg: a.cfg, metrics: a.metrics}
	forget := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) { c.offsets.forget(partitions) }
	options := append([]kgo.Opt{
		kgo.SeedBrokers(a.cfg.Brokers...),
		kgo.ClientID("walpost-archive"),
	}, a.cfg.KafkaOptions...)
	options = append(options,
		kgo.ConsumerGroup(a.cfg.Group),
		kgo.ConsumeRegex(),
		kgo.ConsumeTopics(a.cfg.Topics),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(a.cfg.SessionTimeout),
		kgo.HeartbeatInterval(a.cfg.SessionTimeout/4),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(forget),
		kgo.OnPartitionsLost(forget),
		kgo.MetadataMaxAge(a.cfg.TopicsEvery),
		kgo.MetadataMinAge(a.cfg.TopicsEvery/4),
	)
	if a.cfg.Instance != "" {
		options = append(options, kgo.InstanceID(a.cfg.Instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	c.client = client
	return c, nil
}

// run consumes until ctx ends or records cannot be written, and closes the
// client.
func (c *consumer) run(ctx context.Context, w *writer) error {
	defer c.client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		c.gather(ctx)
		if len(c.batch) > 0 {
			if err := w.write(ctx, c.batch); err != nil {
				return err
			}
			// Only now: a record whose offset is committed never comes again.
			c.offsets.written(c.batch)
		}
		c.commit(ctx)
		c.client.AllowRebalance()
	}
	return nil
}

// gather waits for records and then for more until the batch is full or has
// lingered.
func (c *consumer) gather(ctx context.Context) {
	clear(c.batch)
	c.batch = c.batch[:0]
	wait := ctx
	if c.offsets.pending() {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, commitAgainAfter)
		defer cancel()
	}
	c.poll(wait)
	if len(c.batch) == 0 {
		return
	}
	linger, cancel := context.WithTimeout(ctx, c.cfg.Linger)
	defer cancel()
	for len(c.batch) < c.cfg.BatchRecords && linger.Err() == nil {
		c.poll(linger)
	}
}

func (c *consumer) poll(ctx context.Context) {
	fetches := c.client.PollRecords(ctx, c.cfg.BatchRecords-len(c.batch))
	fetches.EachError(func(topic string, partition int32, err error) {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) || errors.Is(err, kgo.ErrClientClosed) {
			return
		}
		// The client goes on by itself; a topic that was deleted is none of
		// ours any more.
		c.cfg.Log.WarnContext(ctx, "Kafka fails; trying again",
			slog.String("topic", topic), slog.Int("partition", int(partition)), slog.Any("error", err))
	})
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		c.batch = append(c.batch, p.Records...)
		if n := len(p.Records); n > 0 {
			lag := c.offsets.behind(p.Topic, p.Partition, max(0, p.HighWatermark-p.Records[n-1].Offset-1))
			c.metrics.lag.WithLabelValues(p.Topic).Set(float64(lag))
		}
	})
}

// commit commits the offsets of all that is written. A failure costs
// redelivery, never loss, and the next commit mends it: it is logged here and
// goes no further.
func (c *consumer) commit(ctx context.Context) {
	offsets := c.offsets.uncommitted()
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	var failed error
	c.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		failed = err
		if err != nil {
			return
		}
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	if failed != nil {
		c.cfg.Log.WarnContext(ctx, "commit failed; expect redeliveries", slog.Any("error", failed))
		return
	}
	c.offsets.committed()
	c.metrics.lastCommit.SetToCurrentTime()
}
