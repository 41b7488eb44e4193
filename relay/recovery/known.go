package recovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay"
)

// A known reads what Kafka has of a source: the ids and numbers of records, as
// those see them who read what is committed.
type known struct {
	kafka    *relay.Offline
	source   string
	letters  string // the topic of dead letters
	sequence int64  // the stored position's
	log      *slog.Logger

	last time.Time // of the event with that number; zero: Kafka has it no more, or there was none

	starts, ends map[string]map[int32]int64 // of each partition
	anchors      map[string]map[int32]int64 // of the last record that the position covers; else the start
	compacted    []string                   // topics
	cut          []string                   // topics that retention has cut where we would look
}

// find looks, in every partition, from its end backwards for the last record
// that the stored position covers. All records of the source behind it are
// beyond the position, and none before it is.
func (k *known) find(ctx context.Context, topics map[string]struct{}) error {
	if err := k.offsets(ctx, topics); err != nil {
		return err
	}
	type place struct {
		topic     string
		partition int32
	}
	open := make(map[place]int64) // to the offset that is searched down to
	for topic, partitions := range k.ends {
		k.anchors[topic] = make(map[int32]int64)
		for p, end := range partitions {
			k.anchors[topic][p] = k.starts[topic][p]
			if k.sequence > 0 && end > k.starts[topic][p] {
				open[place{topic, p}] = end
			}
		}
	}
	best := int64(0)
	for step := int64(1000); len(open) > 0; step *= 16 {
		from := make(map[string]map[int32]kgo.Offset)
		to := make(map[string]map[int32]int64)
		for at, end := range open {
			set(from, at.topic, at.partition, kgo.NewOffset().At(max(k.starts[at.topic][at.partition], end-step)))
			set(to, at.topic, at.partition, end)
		}
		found := make(map[place]bool)
		err := k.read(ctx, from, to, func(r *kgo.Record, e *cloudevent.Event) error {
			if e.Sequence > k.sequence {
				return nil
			}
			at := place{r.Topic, r.Partition}
			found[at] = true
			k.anchors[at.topic][at.partition] = r.Offset
			if e.Sequence > best {
				best = e.Sequence
				if best == k.sequence {
					k.last = e.Time
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for at, end := range open {
			lower := max(k.starts[at.topic][at.partition], end-step)
			if found[at] || lower == k.starts[at.topic][at.partition] {
				delete(open, at)
				continue
			}
			open[at] = lower
		}
	}
	return nil
}

func set[V any](m map[string]map[int32]V, topic string, partition int32, v V) {
	if m[topic] == nil {
		m[topic] = make(map[int32]V)
	}
	m[topic][partition] = v
}

// offsets learns which of the topics exist, and where they begin and end.
func (k *known) offsets(ctx context.Context, topics map[string]struct{}) error {
	k.starts, k.ends, k.anchors = make(map[string]map[int32]int64), make(map[string]map[int32]int64), make(map[string]map[int32]int64)
	admin := kadm.NewClient(k.kafka.Client)
	names := slices.Sorted(maps.Keys(topics))
	if len(names) == 0 {
		return nil
	}
	details, err := admin.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("look for topics: %w", err)
	}
	names = names[:0]
	for _, d := range details.Sorted() {
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition): // so nothing was published to it
		case d.Err != nil:
			return fmt.Errorf("look for topic %s: %w", d.Topic, d.Err)
		default:
			names = append(names, d.Topic)
		}
	}
	if len(names) == 0 {
		return nil
	}
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("ask where topics begin: %w", err)
	}
	starts.Each(func(o kadm.ListedOffset) { set(k.starts, o.Topic, o.Partition, o.Offset) })
	ends, err := admin.ListEndOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("ask where topics end: %w", err)
	}
	ends.Each(func(o kadm.ListedOffset) { set(k.ends, o.Topic, o.Partition, o.Offset) })
	configs, err := admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("ask how topics are cleaned up: %w", err)
	}
	for _, c := range configs {
		if c.Err != nil {
			return fmt.Errorf("ask how topic %s is cleaned up: %w; allow it: kafka-acls.sh --add --operation DescribeConfigs --topic %s --allow-principal User:…", c.Name, c.Err, c.Name)
		}
		for _, entry := range c.Configs {
			if entry.Key == "cleanup.policy" && strings.Contains(entry.MaybeValue(), "compact") {
				k.compacted = append(k.compacted, c.Name)
			}
		}
	}
	return nil
}

// before is how many records in front of a time are read too: by their numbers
// it is known whether any behind them is missing.
const before = 1000

// load puts the ids of what was published from since on, and of all beyond the
// stored position, into the temporary table.
func (k *known) load(ctx context.Context, conn *pgx.Conn, since time.Time) error {
	topics := slices.Sorted(maps.Keys(k.ends))
	from, to := make(map[string]map[int32]kgo.Offset), make(map[string]map[int32]int64)
	if len(topics) > 0 {
		at := make(map[string]map[int32]int64)
		if since.IsZero() {
			at = k.starts
		} else {
			listed, err := kadm.NewClient(k.kafka.Client).ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...)
			if err == nil {
				err = listed.Error()
			}
			if err != nil {
				return fmt.Errorf("ask where topics were at %v: %w", since, err)
			}
			listed.Each(func(o kadm.ListedOffset) { set(at, o.Topic, o.Partition, o.Offset) })
		}
		for topic, partitions := range k.ends {
			for p, end := range partitions {
				start := k.starts[topic][p]
				if start > 0 && at[topic][p] <= start && !slices.Contains(k.cut, topic) {
					k.cut = append(k.cut, topic)
				}
				if start = max(start, min(at[topic][p]-before, k.anchors[topic][p])); start < end {
					set(from, topic, p, kgo.NewOffset().At(start))
					set(to, topic, p, end)
				}
			}
		}
	}
	rows := make([][]any, 0, 10_000)
	flush := func() error {
		_, err := conn.CopyFrom(ctx, pgx.Identifier{"pg_temp", "walpost_known"}, []string{"id", "sequence", "recent"}, pgx.CopyFromRows(rows))
		if err != nil {
			return fmt.Errorf("keep the ids that Kafka has: %w", err)
		}
		rows = rows[:0]
		return nil
	}
	err := k.read(ctx, from, to, func(_ *kgo.Record, e *cloudevent.Event) error {
		id, err := outbox.ParseID(e.ID)
		if err != nil {
			return fmt.Errorf("event %s of source %s: %w", e.ID, k.source, err)
		}
		rows = append(rows, []any{[16]byte(id), e.Sequence, !e.Time.Before(since)})
		if len(rows) == cap(rows) {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err == nil {
		_, err = conn.Exec(ctx, `create index on pg_temp.walpost_known (id); create index on pg_temp.walpost_known (sequence); analyze pg_temp.walpost_known`)
	}
	return err
}

// silence is how long Kafka may give nothing while there is more to come.
const silence = time.Minute

// read gives the records of the source from one set of offsets up to another.
func (k *known) read(ctx context.Context, from map[string]map[int32]kgo.Offset, to map[string]map[int32]int64, each func(*kgo.Record, *cloudevent.Event) error) error {
	left := 0
	for _, partitions := range to {
		left += len(partitions)
	}
	if left == 0 {
		return nil
	}
	client, err := kgo.NewClient(append(slices.Clip(k.kafka.Options),
		kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxBytes(16<<20))...)
	if err != nil {
		return fmt.Errorf("make the Kafka client: %w", err)
	}
	defer client.Close()
	done := make(map[string]map[int32]bool)
	for count := int64(0); left > 0; {
		waiting, cancel := context.WithTimeout(ctx, silence)
		fetches := client.PollFetches(waiting)
		cancel()
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if waiting.Err() != nil && fetches.NumRecords() == 0 {
			return fmt.Errorf("read what Kafka has: nothing came for %v, and %d partitions are not at their end: an open transaction of another producer may be in the way", silence, left)
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, kerr.TopicAuthorizationFailed) {
				return fmt.Errorf("read topic %s: %w; allow it: kafka-acls.sh --add --operation Read --topic %[1]s --allow-principal User:…", e.Topic, e.Err)
			}
			return fmt.Errorf("read topic %s: %w", e.Topic, e.Err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			end := to[r.Topic][r.Partition]
			if r.Offset >= end-1 && !done[r.Topic][r.Partition] {
				set(done, r.Topic, r.Partition, true)
				left--
			}
			if r.Offset >= end || r.Attrs.IsControl() || !k.ours(r) {
				continue
			}
			e, err := cloudevent.Decode(r)
			if err != nil && r.Topic == k.letters {
				e, err = letter(r)
			}
			if err != nil {
				return fmt.Errorf("read topic %s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
			}
			if count++; count%1_000_000 == 0 {
				k.log.InfoContext(ctx, "reading what Kafka has", slog.Int64("events", count))
			}
			if err := each(r, &e); err != nil {
				return err
			}
		}
	}
	return nil
}

// letter gives of a dead letter, which may be no valid event, what matters here.
func letter(r *kgo.Record) (e cloudevent.Event, err error) {
	for i := range r.Headers {
		switch value := string(r.Headers[i].Value); r.Headers[i].Key {
		case cloudevent.HeaderID:
			e.ID = value
		case cloudevent.HeaderSequence:
			e.Sequence, err = strconv.ParseInt(value, 10, 64)
		case cloudevent.HeaderTime:
			e.Time, _ = time.Parse(time.RFC3339Nano, value) // the zero time is as good here
		}
	}
	return e, err
}

func (k *known) ours(r *kgo.Record) bool {
	source, replay := false, false
	for i := range r.Headers {
		switch r.Headers[i].Key {
		case cloudevent.HeaderSource:
			source = string(r.Headers[i].Value) == k.source
		case cloudevent.HeaderReplay:
			replay = true
		}
	}
	return source && !replay
}

// numbers gives the last number that was given to a record, and those up to it
// behind the stored position of which Kafka has no record: they were on their
// way when the relay ended.
func (k *known) numbers(ctx context.Context, conn *pgx.Conn) (last int64, holes []int64, err error) {
	err = conn.QueryRow(ctx, `select greatest($1::bigint, (select max(sequence) from pg_temp.walpost_known))`, k.sequence).Scan(&last)
	if err != nil {
		return 0, nil, fmt.Errorf("look at the sequence: %w", err)
	}
	rows, err := conn.Query(ctx, `select n from generate_series($1::bigint + 1, $2) n
		where not exists (select from pg_temp.walpost_known where sequence = n) order by n`, k.sequence, last)
	if err != nil {
		return 0, nil, fmt.Errorf("look for holes in the sequence: %w", err)
	}
	holes, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	return last, holes, err
}

// doubtful gives the topics of which Kafka may have deleted events that are
// looked for: those it compacts, and those that begin where we would look. None
// has where every number from before that time to the stored position is there.
func (k *known) doubtful(ctx context.Context, conn *pgx.Conn) (map[string]bool, error) {
	topics := make(map[string]bool)
	if k.sequence == 0 {
		return topics, nil
	}
	var complete bool
	err := conn.QueryRow(ctx, `
		select coalesce((f.recent = 1 or f.first < f.recent) and
			(select count(distinct sequence) from pg_temp.walpost_known where sequence between f.recent and $1) = $1 - f.recent + 1, false)
		from (select min(sequence) as first, min(sequence) filter (where recent) as recent from pg_temp.walpost_known) f`, k.sequence).Scan(&complete)
	if err != nil {
		return nil, fmt.Errorf("look at the sequence: %w", err)
	}
	if complete {
		return topics, nil
	}
	for _, topic := range slices.Concat(k.compacted, k.cut) {
		topics[topic] = true
	}
	return topics, nil
}
