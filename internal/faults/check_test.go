package faults

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// A committed event is one that PostgreSQL has committed, as the ledger has it.
type committed struct {
	ID          string
	Transaction int64 // the id of its transaction
	Place       int   // in it, from 0 with gaps where a savepoint was rolled back
	Topic       string
	Key         string
	Version     int64 // of the key: 1, 2, 3, … in commit order
	Mode        string
	Digest      []byte // SHA-256 of the payload
}

// A published event is a record of Kafka, decoded.
type published struct {
	cloudevent.Event

	topic     string
	partition int32
	offset    int64
	key       string
}

func decode(r *kgo.Record) (published, error) {
	e, err := cloudevent.Decode(r)
	if err != nil {
		return published{}, fmt.Errorf("record %s/%d/%d is no event: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return published{Event: e, topic: r.Topic, partition: r.Partition, offset: r.Offset, key: string(r.Key)}, nil
}

func (p *published) String() string {
	return fmt.Sprintf("event %s at %s/%d/%d (key %s, version %d, sequence %d, position %s)",
		p.ID, p.topic, p.partition, p.offset, p.key, p.AggregateVersion, p.Sequence, p.Position)
}

// A checker finds where what Kafka holds breaks a promise.
type checker struct {
	again int // how many transactions may come again, in part or whole; anyNumber: all

	problems []string
	repeats  int                // records that came again
	repeated map[int64]struct{} // their transactions
}

// anyNumber is no limit to what comes again.
const anyNumber = -1

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// check compares all records, those of a partition in the order of their
// offsets, with all that was committed:
//
//   - each committed event is there, and as it was committed;
//   - nothing else is, so nothing of a rollback;
//   - the sequence numbers are 1 to n, one an event; a record that comes again
//     has its event's id and number, and no more transactions do than may;
//   - what comes first of each event stands in the order of the sequence in its
//     partition, and a key's versions are in order and in one partition;
//   - the sequence goes by the commits' places in the log, and in a commit by
//     the order of writing, without a hole and without another's in between.
func (c *checker) check(want []committed, got []published) {
	byID := make(map[string]*committed, len(want))
	for i := range want {
		byID[want[i].ID] = &want[i]
	}
	firsts := c.first(byID, got)
	if c.again != anyNumber && len(c.repeated) > c.again {
		c.problem("%d records of %d transactions came again, of %d may", c.repeats, len(c.repeated), c.again)
	}
	lost := 0
	for i := range want {
		if w := &want[i]; firsts[w.ID] == nil {
			if lost++; lost <= 5 {
				c.problem("lost: event %s of transaction %d (mode %s, key %s, version %d)", w.ID, w.Transaction, w.Mode, w.Key, w.Version)
			}
		}
	}
	if lost > 5 {
		c.problem("lost: %d events in all of %d", lost, len(want))
	}
	c.checkSequence(firsts)
	c.checkTransactions(want, firsts)
}

// first compares each record with its event and with the records before it,
// and gives the first of each event.
func (c *checker) first(byID map[string]*committed, got []published) map[string]*published {
	firsts := make(map[string]*published, len(byID))
	c.repeated = make(map[int64]struct{})
	type place struct {
		topic     string
		partition int32
	}
	last := make(map[place]*published)
	versions, places := make(map[string]*published), make(map[string]place)
	for i := range got {
		p := &got[i]
		w := byID[p.ID]
		if w == nil {
			c.problem("%v was never committed", p)
			continue
		}
		if diff := different(w, p); diff != "" {
			c.problem("%v is not what was committed: %s", p, diff)
		}
		at := place{p.topic, p.partition}
		if before := firsts[p.ID]; before != nil {
			c.repeats++
			c.repeated[w.Transaction] = struct{}{}
			if before.Sequence != p.Sequence || before.Position != p.Position {
				c.problem("%v came again as %v", before, p)
			}
			continue
		}
		firsts[p.ID] = p
		if before := last[at]; before != nil && before.Sequence >= p.Sequence {
			c.problem("%v came behind %v", p, before)
		}
		last[at] = p
		if before := versions[p.key]; before != nil && before.AggregateVersion >= p.AggregateVersion {
			c.problem("%v came behind %v of its key", p, before)
		}
		versions[p.key] = p
		if before, ok := places[p.key]; ok && before != at {
			c.problem("%v is not where its key was before, %v", p, before)
		}
		places[p.key] = at
	}
	return firsts
}

// different says what of a record is not its event's.
func different(w *committed, p *published) string {
	digest := sha256.Sum256(p.Data)
	switch {
	case string(w.Digest) != string(digest[:]):
		return "another payload"
	case w.Topic != p.topic:
		return "committed for topic " + w.Topic
	case w.Key != p.key, w.Key != p.Subject:
		return "committed for key " + w.Key
	case w.Version != p.AggregateVersion:
		return "committed at version " + strconv.FormatInt(w.Version, 10)
	case w.Mode != p.Get("mode"):
		return "committed with header mode " + w.Mode
	}
	return ""
}

// checkSequence finds the numbers 1 to n, each once.
func (c *checker) checkSequence(firsts map[string]*published) {
	all := make(map[int64]*published, len(firsts))
	highest := int64(0)
	for _, p := range firsts {
		if other := all[p.Sequence]; other != nil {
			c.problem("%v has the sequence of %v", p, other)
		}
		all[p.Sequence] = p
		highest = max(highest, p.Sequence)
	}
	for n, holes := int64(1), 0; n <= max(highest, int64(len(firsts))) && holes < 5; n++ {
		if all[n] == nil {
			c.problem("no event has sequence %d, the highest is %d", n, highest)
			holes++
		}
	}
}

// A position is where an event stands in the log.
type position struct {
	generation int64
	commit     lsn.Pos
	index      int
}

func parsePosition(s string) (position, error) {
	generation, rest, ok1 := strings.Cut(s, "/")
	cut := strings.LastIndexByte(rest, '/')
	if !ok1 || cut < 0 {
		return position{}, fmt.Errorf("position %q", s)
	}
	g, err1 := strconv.ParseInt(generation, 10, 64)
	commit, err2 := lsn.Parse(rest[:cut])
	index, err3 := strconv.Atoi(rest[cut+1:])
	if err := cmp.Or(err1, err2, err3); err != nil {
		return position{}, fmt.Errorf("position %q: %w", s, err)
	}
	return position{g, commit, index}, nil
}

// checkTransactions compares the places of the events of each transaction, and
// those of the transactions among each other.
func (c *checker) checkTransactions(want []committed, firsts map[string]*published) {
	transactions := make(map[int64][]*committed)
	for i := range want {
		transactions[want[i].Transaction] = append(transactions[want[i].Transaction], &want[i])
	}
	type begin struct {
		position

		sequence int64
	}
	var begins []begin
	for id, events := range transactions {
		slices.SortFunc(events, func(a, b *committed) int { return cmp.Compare(a.Place, b.Place) })
		var first begin
		for i, w := range events {
			p := firsts[w.ID]
			if p == nil {
				continue // lost, which is said
			}
			at, err := parsePosition(p.Position)
			if err != nil {
				c.problem("%v: %v", p, err)
				continue
			}
			if first.sequence == 0 {
				first = begin{position{at.generation, at.commit, 0}, p.Sequence - int64(i)}
				begins = append(begins, first)
			}
			if want := (position{first.generation, first.commit, i}); at != want || p.Sequence != first.sequence+int64(i) {
				c.problem("%v is event %d of transaction %d: want position %d/%v/%d and sequence %d",
					p, i, id, want.generation, want.commit, want.index, first.sequence+int64(i))
			}
		}
	}
	slices.SortFunc(begins, func(a, b begin) int { return cmp.Compare(a.sequence, b.sequence) })
	for i := 1; i < len(begins); i++ {
		if a, b := begins[i-1], begins[i]; a.generation != b.generation || a.commit >= b.commit {
			c.problem("the transaction at %d/%v has sequence %d, the one at %d/%v has %d",
				a.generation, a.commit, a.sequence, b.generation, b.commit, b.sequence)
		}
	}
}
