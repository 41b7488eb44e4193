package inbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commitLimit bounds a commit, which also runs after the context has ended:
// what is finished need not come again.
const commitLimit = 5 * time.Second

// A committer commits the finished prefixes of partitions.
type committer struct {
	client *kgo.Client
	sched  *scheduler
	log    *slog.Logger
	mu     sync.Mutex // one commit at a time, so that none goes back
}

// run commits every so often until ctx ends.
func (c *committer) run(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.partitions(ctx, nil)
		}
	}
}

// partitions commits those given and all that are assigned. A failure costs
// redelivery, never loss, and the next commit mends it: it is logged here and
// goes no further.
func (c *committer) partitions(ctx context.Context, dropped []*partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offsets, parts := c.sched.uncommitted(dropped)
	if len(parts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
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
		c.log.WarnContext(ctx, "commit failed; expect redeliveries", slog.Any("error", failed))
		return
	}
	c.sched.committed(parts)
}
