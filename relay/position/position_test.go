package position_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/relay/position"
)

func TestPartialPositionsHaveAVersionOfTheirOwn(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change  func(*position.Position)
		partial bool
	}{
		"whole":            {change: func(p *position.Position) { p.End = p.Commit + 48 }},
		"a later end":      {change: func(p *position.Position) { p.End = p.Commit + 4096 }},
		"before the first": {change: func(p *position.Position) { p.Commit, p.Sequence, p.Index = 0, 0, 0 }},
		"the slot is being made": {change: func(p *position.Position) {
			*p = position.Position{SystemID: "1", Slot: "s", Generation: 1, Creating: true}
		}},
		"inside a transaction":      {change: func(p *position.Position) { p.End, p.EventID = p.Commit-1, "e" }, partial: true},
		"directly behind a commit":  {change: func(p *position.Position) { p.End, p.EventID = p.Commit, "e" }, partial: true},
		"of the first of all, part": {change: func(p *position.Position) { p.End, p.EventID = 16, "e" }, partial: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := position.Position{SystemID: "1", Slot: "s", Generation: 2, Commit: 1000, Index: 3, Sequence: 9, End: 1048}
			tt.change(&p)
			b, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := position.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			p.Version = 1
			if tt.partial {
				p.Version = 2
			}
			if got.Partial() != tt.partial || got != p {
				t.Errorf("partial: %t, want %t; %s", got.Partial(), tt.partial, cmp.Diff(p, got))
			}
		})
	}
}

// TestDecodeRefuses lists what a relay must not go on from.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const whole = `{"version":1,"systemId":"1","slot":"s","generation":1,"commitLsn":"0/10","index":0,"endLsn":"0/20","sequence":1,"at":"2026-11-24T00:00:00Z"}`
	if _, err := position.Decode([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ old, new, says string }{
		"a later version":                  {`"version":1`, `"version":3`, "run the relay that wrote it"},
		"no version":                       {`"version":1,`, ``, "version 0"},
		"version 1 inside a transaction":   {`"endLsn":"0/20"`, `"endLsn":"0/10"`, "contradicts itself"},
		"version 2 not inside one":         {`"version":1`, `"version":2`, "contradicts itself"},
		"no cluster":                       {`"systemId":"1"`, `"systemId":""`, "incomplete"},
		"no generation":                    {`"generation":1`, `"generation":0`, "incomplete"},
		"a sequence before the first":      {`"sequence":1`, `"sequence":-1`, "incomplete"},
		"something that is no JSON at all": {`{`, ``, "decode position"},
		"an LSN with something behind it":  {`"0/20"`, `"0/20 "`, "decode position"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := position.Decode([]byte(strings.Replace(whole, tt.old, tt.new, 1)))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Decode: %v, want %q", err, tt.says)
			}
		})
	}
}
