package faults

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// sound gives a ledger of four transactions and records that keep every
// promise: keys a and b, each in a partition of its own, and the last two
// transactions again.
func sound() ([]committed, []published) {
	var ledger []committed
	var records []published
	versions := make(map[string]int64)
	for n := range 8 {
		key := string("ab"[n%2])
		versions[key]++
		payload := fmt.Append(nil, "payload ", n)
		digest := sha256.Sum256(payload)
		w := committed{
			ID: fmt.Sprintf("id%d", n), Transaction: int64(100 + n/2), Place: n % 2,
			Topic: "t", Key: key, Version: versions[key], Mode: "rows", Digest: digest[:],
		}
		ledger = append(ledger, w)
		records = append(records, published{
			Event: cloudevent.Event{
				ID: w.ID, Subject: key, Sequence: int64(n + 1), AggregateVersion: w.Version, Data: payload,
				Position: fmt.Sprintf("1/0/%X/%d", 1000+n/2*100, n%2),
				Headers:  []cloudevent.Header{{Name: "mode", Value: "rows"}},
			},
			topic: "t", partition: int32(n % 2), offset: int64(n / 2), key: key,
		})
	}
	for _, r := range slices.Clone(records[4:]) {
		r.offset += 2
		records = append(records, r)
	}
	return ledger, records
}

// TestChecker breaks each promise by hand, and expects it to be found.
func TestChecker(t *testing.T) {
	t.Parallel()
	move := func(records []published, from, to int) []published {
		r := records[from]
		return slices.Insert(slices.Delete(records, from, from+1), to, r)
	}
	for name, tt := range map[string]struct {
		ledger  func([]committed) []committed
		records func([]published) []published
		again   int
		want    string // part of a problem; empty: none may be found
	}{
		"sound":  {},
		"a loss": {records: func(r []published) []published { return r[1:] }, want: "lost: event id0"},
		"a loss at the end": {records: func(r []published) []published {
			return slices.DeleteFunc(r, func(p published) bool { return p.ID == "id7" })
		}, want: "lost: event id7"},
		"a rollback":   {ledger: func(l []committed) []committed { return l[:7] }, want: "id7 at t/1/3 (key b, version 4, sequence 8, position 1/0/514/1) was never committed"},
		"more repeats": {again: 1, want: "4 records of 2 transactions came again, of 1 may"},
		"a repeat with another sequence": {records: func(r []published) []published {
			r[8].Sequence = 9
			return r
		}, want: "came again as"},
		"a repeat at another position": {records: func(r []published) []published {
			r[8].Position = "1/0/1/0"
			return r
		}, want: "came again as"},
		"two events with one sequence": {records: func(r []published) []published {
			r[3].Sequence = 3
			return r
		}, want: "has the sequence of"},
		"a hole": {records: func(r []published) []published {
			for i := range r {
				if r[i].Sequence > 4 {
					r[i].Sequence++
				}
			}
			return r
		}, want: "no event has sequence 5"},
		"a sequence from zero": {records: func(r []published) []published {
			for i := range r {
				r[i].Sequence--
			}
			return r
		}, want: "no event has"},
		"a key out of order": {records: func(r []published) []published { return move(r, 0, 3) }, want: "came behind"},
		"a key in two partitions": {records: func(r []published) []published {
			r[7].partition = 0
			return r[:8]
		}, want: "is not where its key was"},
		"another payload": {records: func(r []published) []published {
			r[9].Data = []byte("x")
			return r
		}, want: "another payload"},
		"another topic": {records: func(r []published) []published {
			r[0].topic = "u"
			return r
		}, want: "committed for topic t"},
		"another key": {records: func(r []published) []published {
			r[0].key = "c"
			return r
		}, want: "committed for key a"},
		"another version": {records: func(r []published) []published {
			r[0].AggregateVersion = 7
			return r
		}, want: "committed at version 1"},
		"a lost header": {records: func(r []published) []published {
			r[0].Headers = nil
			return r
		}, want: "header mode"},
		"an index that is not the place": {records: func(r []published) []published {
			r[1].Position = "1/0/3E8/2"
			return r
		}, want: "want position 1/0/3E8/1"},
		"a transaction in two commits": {records: func(r []published) []published {
			r[1].Position = "1/0/3E9/1"
			return r
		}, want: "want position 1/0/3E8/1"},
		"transactions that are interleaved": {records: func(r []published) []published {
			r[1].Sequence, r[2].Sequence = 3, 2
			return r
		}, want: "is event 1 of transaction 100"},
		"commits out of order": {records: func(r []published) []published {
			r[0].Position, r[1].Position = "1/0/44D/0", "1/0/44D/1"
			return r
		}, want: "the transaction at"},
		"another generation": {records: func(r []published) []published {
			r[0].Position, r[1].Position = "2/0/3E8/0", "2/0/3E8/1"
			return r
		}, want: "the transaction at 2/0/3E8"},
		"no position": {records: func(r []published) []published {
			r[0].Position = "1/0"
			return r
		}, want: "position"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ledger, records := sound()
			if tt.ledger != nil {
				ledger = tt.ledger(ledger)
			}
			if tt.records != nil {
				records = tt.records(records)
			}
			c := checker{again: cmp.Or(tt.again, 2)}
			c.check(ledger, records)
			found := slices.ContainsFunc(c.problems, func(p string) bool { return strings.Contains(p, tt.want) })
			if tt.want == "" && len(c.problems) > 0 || tt.want != "" && !found {
				t.Errorf("found %q, want %q", c.problems, tt.want)
			}
			if tt.want == "" && c.repeats != 4 {
				t.Errorf("%d repeats, want 4", c.repeats)
			}
		})
	}
}
