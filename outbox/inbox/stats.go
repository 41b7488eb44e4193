package inbox

import (
	"cmp"
	"slices"
)

// Stats is what an [Inbox] has done since it was made, and what it has in
// hand.
type Stats struct {
	Handled     int64 // events whose handlers' effects are committed
	Duplicates  int64 // deliveries of events that were handled before
	Retries     int64 // attempts that failed and were followed by a wait
	Unavailable int64 // attempts for which PostgreSQL was away
	Dead        int64 // events that became dead letters
	Waiting     int64 // events that were put behind a dead letter
	Skipped     int64 // events passed over by a [Policy]

	InFlight int // records fetched and not behind the finished prefix
	AtWork   int // handlers at work
	Resting  int // ordering keys in back-off
	Held     int // ordering keys whose first event is tried for ever: see [HandleFunc]

	Partitions []PartitionStats // by topic and number
}

// PartitionStats is about one partition that is assigned and has had records.
type PartitionStats struct {
	Topic     string
	Partition int32
	InFlight  int   // records
	Finished  int64 // the offset up to which all is finished; 0: nothing yet
	Behind    int64 // records from there to the partition's end, as of the last fetch
	Paused    bool  // it is not fetched, since [Config.MaxInFlight] records are in flight
}

// Stats may be called from any goroutine at any time.
func (in *Inbox) Stats() Stats {
	n := &in.tell.counts
	s := Stats{
		Handled: n.handled.Load(), Duplicates: n.duplicates.Load(), Retries: n.retries.Load(), Unavailable: n.unavailable.Load(),
		Dead: n.dead.Load(), Waiting: n.waiting.Load(), Skipped: n.skipped.Load(),
	}
	if c := in.consumer.Load(); c != nil {
		c.sched.stats(&s)
	}
	return s
}

func (s *scheduler) stats(to *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to.AtWork, to.Resting, to.Held = s.atWork, s.rest, s.held
	for _, p := range s.parts {
		to.InFlight += len(p.pending)
		from := p.next.Offset
		if from == 0 && len(p.pending) > 0 {
			from = p.pending[0].offset
		}
		to.Partitions = append(to.Partitions, PartitionStats{
			Topic: p.topic, Partition: p.id, InFlight: len(p.pending), Finished: p.next.Offset, Behind: max(0, p.end-from), Paused: p.paused,
		})
	}
	slices.SortFunc(to.Partitions, func(a, b PartitionStats) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}
