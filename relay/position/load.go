package position

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Load reads the topic to its end and gives the source's last position; found
// is false where there is none. A position written in a transaction counts once
// that is committed.
//
// It does not read as a consumer of committed records does, which stops in
// front of the first open transaction: the sources share the topic, so the
// transaction of another one would hide what this one has committed behind it.
func (s *Store) Load(ctx context.Context) (p Position, found bool, err error) {
	admin := kadm.NewClient(s.Client)
	starts, err := admin.ListStartOffsets(ctx, s.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return p, false, fmt.Errorf("load position of %s: %w", s.Source, err)
	}
	ends, err := admin.ListEndOffsets(ctx, s.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return p, false, fmt.Errorf("load position of %s: %w", s.Source, err)
	}
	start, _ := starts.Lookup(s.Topic, 0)
	end, _ := ends.Lookup(s.Topic, 0)
	for from := max(start.Offset, end.Offset-tail); ; from = start.Offset {
		last := reading{source: s.Source}
		if err := s.read(ctx, from, end.Offset, &last); err != nil {
			return p, false, fmt.Errorf("load position of %s: %w", s.Source, err)
		}
		if last.found || from <= start.Offset {
			last.position.Transactional = last.transactional
			return last.position, last.found, nil
		}
	}
}

// read gives the records of the offsets from from to end to last.
func (s *Store) read(ctx context.Context, from, end int64, last *reading) error {
	if from >= end {
		return nil
	}
	client, err := kgo.NewClient(append(slices.Clip(s.Options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.Topic: {0: kgo.NewOffset().At(from)}}),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return err
	}
	defer client.Close()
	for next := from; next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			return e.Err
		}
		for _, r := range fetches.Records() {
			next = r.Offset + 1
			if r.Offset >= end {
				break
			}
			if err := last.add(r); err != nil {
				return fmt.Errorf("offset %d: %w", r.Offset, err)
			}
		}
	}
	return nil
}

// A reading finds the last position of a source among records and the markers
// that end transactions.
type reading struct {
	source string

	position      Position
	found         bool
	offset        int64                 // of position
	transactional bool                  // of the source's last record
	open          map[int64]*kgo.Record // by its producer, whose transaction's end has not been read
}

func (l *reading) add(r *kgo.Record) error {
	if r.Attrs.IsControl() {
		written := l.open[r.ProducerID]
		delete(l.open, r.ProducerID)
		if written == nil || !commits(r) {
			return nil
		}
		return l.set(written)
	}
	if string(r.Key) != l.source {
		return nil
	}
	l.transactional = r.Attrs.IsTransactional()
	if !l.transactional {
		return l.set(r)
	}
	if l.open == nil {
		l.open = make(map[int64]*kgo.Record)
	}
	l.open[r.ProducerID] = r
	return nil
}

// set takes r unless a later one is known: a marker may come behind records
// that were written after those it is about.
func (l *reading) set(r *kgo.Record) error {
	if l.found && r.Offset < l.offset {
		return nil
	}
	p, err := Decode(r.Value)
	if err != nil {
		return err
	}
	l.position, l.found, l.offset = p, true, r.Offset
	return nil
}

// commits reports whether the marker r ends its transaction by a commit. Its
// key is a version and a type, of two bytes each; type 1 is a commit.
func commits(r *kgo.Record) bool {
	return len(r.Key) >= 4 && binary.BigEndian.Uint16(r.Key[2:]) == 1
}
