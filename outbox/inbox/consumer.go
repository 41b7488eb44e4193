package inbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// errMoved is the cause with which the context of a handler ends whose
// partition has moved away.
var errMoved = errors.New("the partition has moved to another member of the group")

// afterEnd is how long a rebalance waits, beyond its grace, for handlers whose
// contexts it has just ended.
const afterEnd = time.Second

// A consumer fetches records for the scheduler and commits what it finished.
type consumer struct {
	in     *Inbox
	client *kgo.Client
	sched  *scheduler
	work   context.Context // the handlers': it outlives Run's by the grace
	commit committer

	poll   int        // records at once
	flowMu sync.Mutex // held while partitions are paused and resumed
}

func newConsumer(work context.Context, in *Inbox, topics []string) (*consumer, error) {
	cfg := &in.cfg
	c := &consumer{
		in: in, work: work,
		// Every worker should find a key, without much waiting in memory.
		sched: newScheduler(4 * cfg.Concurrency),
		poll:  max(1, min(100, cfg.MaxInFlight/4)),
	}
	options := append([]kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID("walpost-inbox"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
	}, cfg.KafkaOptions...)
	options = append(options,
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(topics...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.SessionTimeout/4),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(c.revoked),
		kgo.OnPartitionsLost(c.lost),
	)
	if cfg.Instance != "" {
		options = append(options, kgo.InstanceID(cfg.Instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	c.client = client
	c.commit = committer{client: client, sched: c.sched, log: cfg.Log}
	return c, nil
}

// fetch gives records to the scheduler until ctx ends or that stops.
func (c *consumer) fetch(ctx context.Context) {
	for c.sched.waitForRoom() {
		fetches := c.client.PollRecords(ctx, c.poll)
		if ctx.Err() != nil {
			c.client.AllowRebalance()
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			c.in.cfg.Log.WarnContext(ctx, "Kafka fails; trying again",
				slog.String("topic", topic), slog.Int("partition", int(partition)), slog.Any("error", err))
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				c.take(ctx, p)
			}
		})
		// Only now: no partition moves before its records are in hand.
		c.client.AllowRebalance()
	}
}

func (c *consumer) take(ctx context.Context, fetched kgo.FetchTopicPartition) {
	p := c.sched.partition(c.work, fetched.Topic, fetched.Partition) //nolint:contextcheck // handlers outlive the fetching
	items := make([]item, len(fetched.Records))
	for n, r := range fetched.Records {
		i := &items[n]
		*i = item{event: c.in.event(r), part: p, epoch: r.LeaderEpoch, offset: r.Offset}
		if i.event.handler == nil && i.event.invalid == nil && c.in.cfg.Unknown == Skip {
			c.in.tell.skipped(ctx, &i.event, 0, time.Now(), errUnknownType)
			i.finish()
		}
	}
	c.sched.add(p, items, fetched.HighWatermark)
	c.flow(p)
}

// run is a worker: it handles items until the scheduler stops.
func (c *consumer) run(fail func(error)) {
	for {
		i := c.sched.next()
		if i == nil {
			return
		}
		p := i.part
		v, err := c.in.process(p.ctx, i)
		if err != nil {
			fail(err)
		}
		if c.sched.finish(i, v) {
			c.flow(p)
		}
	}
}

// flow stops the fetching of a partition of which much is in hand, and has it
// go on when half of that is done.
func (c *consumer) flow(p *partition) {
	c.flowMu.Lock()
	defer c.flowMu.Unlock()
	id := map[string][]int32{p.topic: {p.id}}
	switch full := c.in.cfg.MaxInFlight - c.poll; c.sched.flow(p, full) {
	case pause:
		c.client.PauseFetchPartitions(id)
	case goOn:
		c.client.ResumeFetchPartitions(id)
	case asIs:
	}
}

// revoked gives partitions up in order: nothing new begins, what is at work
// ends, and what is finished is committed before another member begins there.
func (c *consumer) revoked(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
	dropped := c.drop(partitions)
	if len(dropped) == 0 {
		return
	}
	if !c.quiet(dropped, c.in.cfg.RebalanceGrace) {
		for _, p := range dropped {
			p.cancel(errMoved)
		}
		c.quiet(dropped, afterEnd)
	}
	c.commit.partitions(ctx, dropped)
	c.unpause(client, partitions)
}

// lost gives partitions up that others have already. What is at work there
// goes on: the other member's claim of the same event waits for it.
func (c *consumer) lost(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	c.drop(partitions)
	c.unpause(client, partitions)
}

// unpause has dropped partitions fetched when they come back: the client keeps
// a pause for a partition that it does not have.
func (c *consumer) unpause(client *kgo.Client, partitions map[string][]int32) {
	c.flowMu.Lock()
	defer c.flowMu.Unlock()
	client.ResumeFetchPartitions(partitions)
}

func (c *consumer) drop(partitions map[string][]int32) []*partition {
	var ids []tp
	for topic, list := range partitions {
		for _, id := range list {
			ids = append(ids, tp{topic, id})
		}
	}
	return c.sched.drop(ids)
}

// quiet reports whether the handlers of dropped partitions end within limit.
func (c *consumer) quiet(dropped []*partition, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, p := range dropped {
		select {
		case <-p.quiet:
		case <-timer.C:
			return false
		}
	}
	return true
}
