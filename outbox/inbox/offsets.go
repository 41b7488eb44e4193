package inbox

import "github.com/twmb/franz-go/pkg/kgo"

// uncommitted gives what is to be committed: of the partitions given and of
// all that are assigned.
func (s *scheduler) uncommitted(dropped []*partition) (map[string]map[int32]kgo.EpochOffset, map[*partition]kgo.EpochOffset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	offsets, parts := make(map[string]map[int32]kgo.EpochOffset), make(map[*partition]kgo.EpochOffset)
	add := func(p *partition) {
		if !p.dirty {
			return
		}
		if offsets[p.topic] == nil {
			offsets[p.topic] = make(map[int32]kgo.EpochOffset)
		}
		offsets[p.topic][p.id], parts[p] = p.next, p.next
	}
	for _, p := range dropped {
		add(p)
	}
	for _, p := range s.parts {
		add(p)
	}
	return offsets, parts
}

// committed notes what has been committed.
func (s *scheduler) committed(parts map[*partition]kgo.EpochOffset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, at := range parts {
		p.dirty = p.next != at
	}
}

// A change is what becomes of the fetching of a partition.
type change uint8

const (
	asIs change = iota
	pause
	goOn
)

// flow decides about fetching p, of which more than full items are too many.
func (s *scheduler) flow(p *partition, full int) change {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.dropped:
	case !p.paused && len(p.pending) > full:
		p.paused = true
		return pause
	case p.paused && len(p.pending) <= full/2:
		p.paused = false
		return goOn
	}
	return asIs
}
