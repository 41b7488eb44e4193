package relay

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-048de892/walpost/relay/lsn"
)

// TestTrackerConfirmsTheLongestFinishedPrefix drives a tracker with random
// transactions, keepalives and acknowledgements against a plain model.
func TestTrackerConfirmsTheLongestFinishedPrefix(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var tr tracker
		type item struct {
			entry   *entry // nil: a keepalive
			end     lsn.Pos
			pending int
			closed  bool
			last    int64 // sequence; 0: no records
			part    bool  // its transaction goes on in the next item
		}
		var items []*item
		var open *item
		var next lsn.Pos
		var sequence int64
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				if open != nil {
					t.Skip("one at a time")
				}
				open = &item{entry: tr.begin()}
				items = append(items, open)
			},
			"record": func(t *rapid.T) {
				if open == nil {
					t.Skip("no transaction")
				}
				tr.add(open.entry)
				open.pending++
				sequence++
				open.last = sequence
			},
			"commit": func(t *rapid.T) {
				if open == nil {
					t.Skip("no transaction")
				}
				next += 10
				open.end, open.closed = next, true
				tr.close(open.entry, point{end: next, sequence: open.last, commit: next - 5})
				open = nil
			},
			"part": func(t *rapid.T) {
				if open == nil {
					t.Skip("no transaction")
				}
				open.closed, open.part = true, true
				tr.close(open.entry, point{sequence: open.last, index: open.last})
				open = &item{entry: tr.begin()}
				items = append(items, open)
			},
			"keepalive": func(*rapid.T) {
				next += 10
				items = append(items, &item{end: next, closed: true})
				tr.keepalive(next)
			},
			"acknowledge": func(t *rapid.T) {
				var waiting []*item
				for _, i := range items {
					if i.pending > 0 {
						waiting = append(waiting, i)
					}
				}
				if len(waiting) == 0 {
					t.Skip("nothing on its way")
				}
				i := rapid.SampledFrom(waiting).Draw(t, "transaction")
				i.pending--
				tr.acknowledge(i.entry)
			},
			"": func(t *rapid.T) {
				var want point
				for _, i := range items {
					if !i.closed || i.pending > 0 {
						break
					}
					want.end = max(want.end, i.end)
					switch {
					case i.last > 0 && i.part:
						want.sequence, want.index, want.commit = i.last, i.last, 0
					case i.last > 0:
						want.sequence, want.index, want.commit = i.last, 0, i.end-5
					}
				}
				if got, _ := tr.reached(); got != want {
					t.Fatalf("reached %+v, want %+v", got, want)
				}
			},
		})
	})
}

func TestTrackerWakesWhoWaits(t *testing.T) {
	t.Parallel()
	var tr tracker
	e := tr.begin()
	tr.add(e)
	_, changed := tr.reached()
	tr.close(e, point{end: 7, sequence: 1})
	select {
	case <-changed:
		t.Fatal("woken while a record is on its way")
	default:
	}
	tr.acknowledge(e)
	select {
	case <-changed:
	default:
		t.Fatal("not woken when the transaction was done")
	}
}
