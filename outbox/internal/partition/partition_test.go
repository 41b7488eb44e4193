package partition

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPeriodsBeginInUTC(t *testing.T) {
	t.Parallel()
	// A Sunday evening in UTC, Monday there.
	local := at(t, "2026-11-29 22:30:00").In(time.FixedZone("east", 5*60*60))
	for period, want := range map[Period][2]string{
		Hour:  {"2026-11-29 22:00:00", "2026-11-29 23:00:00"},
		Day:   {"2026-11-29 00:00:00", "2026-11-30 00:00:00"},
		Week:  {"2026-11-23 00:00:00", "2026-11-30 00:00:00"},
		Month: {"2026-11-01 00:00:00", "2026-12-01 00:00:00"},
	} {
		if got, want := period.Start(local), at(t, want[0]); !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%v: Start = %v, want %v", period, got, want)
		}
		if got, want := period.Next(local), at(t, want[1]); !got.Equal(want) {
			t.Errorf("%v: Next = %v, want %v", period, got, want)
		}
		var back Period
		if err := back.UnmarshalText([]byte(period.String())); err != nil || back != period {
			t.Errorf("UnmarshalText(%q) = %v, %v", period, back, err)
		}
	}
	if err := new(Period).UnmarshalText([]byte("fortnight")); err == nil || !strings.Contains(err.Error(), "hour, day, week or month") {
		t.Errorf("UnmarshalText(fortnight) = %v, want what there is", err)
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 31) // 62 bytes
	tests := map[string]struct {
		period Period
		table  string
		from   string
		want   string
	}{
		"day":             {Day, "outbox", "2026-11-24 00:00:00", "outbox_p20261124"},
		"hour":            {Hour, "outbox", "2026-11-24 00:00:00", "outbox_p20261124_00"},
		"week":            {Week, "outbox", "2026-11-23 00:00:00", "outbox_p20261123"},
		"behind another":  {Day, "outbox", "2026-11-24 13:30:00", "outbox_p20261124_133000_000000"},
		"longer than fit": {Day, long, "2026-11-24 00:00:00", strings.Repeat("é", 22) + "_4ff881ae_p20261124"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := tt.period.Name(tt.table, at(t, tt.from))
			if len(got) > maxIdentifier || !utf8.ValidString(got) {
				t.Errorf("Name = %q of %d bytes, PostgreSQL keeps %d", got, len(got), maxIdentifier)
			}
			if got != tt.want {
				t.Errorf("Name = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseBound(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		from, to  string
		isDefault bool
		wantErr   bool
	}{
		"FOR VALUES FROM ('2026-11-24 00:00:00+00') TO ('2026-11-25 00:00:00+00')":   {from: "2026-11-24 00:00:00", to: "2026-11-25 00:00:00"},
		"FOR VALUES FROM ('2026-11-24 00:00:00.5+00') TO ('2026-11-25 01:00:00+01')": {from: "2026-11-24 00:00:00.5", to: "2026-11-25 00:00:00"},
		"FOR VALUES FROM (MINVALUE) TO ('2026-11-25 00:00:00+00')":                   {to: "2026-11-25 00:00:00"},
		"FOR VALUES FROM ('2026-11-24 00:00:00+00') TO (MAXVALUE)":                   {from: "2026-11-24 00:00:00"},
		"FOR VALUES FROM ('-infinity') TO ('infinity')":                              {},
		"DEFAULT":             {isDefault: true},
		"":                    {wantErr: true},
		"FOR VALUES IN ('a')": {wantErr: true},
		"FOR VALUES WITH (modulus 2, remainder 0)":                                    {wantErr: true},
		"FOR VALUES FROM ('2026-11-24 00:00:00+00', 1) TO ('2026-11-25 00:00:00+00')": {wantErr: true},
		"FOR VALUES FROM (MAXVALUE) TO (MINVALUE)":                                    {wantErr: true},
		"FOR VALUES FROM ('24.11.2026') TO ('25.11.2026')":                            {wantErr: true},
		"FOR VALUES FROM ('0044-03-15 00:00:00+00 BC') TO ('2026-11-25 00:00:00+00')": {wantErr: true},
	}
	for in, tt := range tests {
		from, to, isDefault, err := parseBound(in)
		if (err != nil) != tt.wantErr || isDefault != tt.isDefault {
			t.Errorf("parseBound(%q) = default %t, %v; want default %t, error %t", in, isDefault, err, tt.isDefault, tt.wantErr)
			continue
		}
		for _, side := range []struct {
			got  time.Time
			want string
		}{{from, tt.from}, {to, tt.to}} {
			if side.want == "" && !side.got.IsZero() || side.want != "" && !side.got.Equal(at(t, side.want)) {
				t.Errorf("parseBound(%q): limit %v, want %q", in, side.got, side.want)
			}
		}
	}
}

func FuzzParseBound(f *testing.F) {
	f.Add("FOR VALUES FROM ('2026-11-24 00:00:00+00') TO (MAXVALUE)")
	f.Add("DEFAULT")
	f.Fuzz(func(t *testing.T, s string) {
		from, to, isDefault, err := parseBound(s)
		if err != nil || isDefault || from.IsZero() || to.IsZero() {
			return
		}
		again := "FOR VALUES FROM (" + literal(from) + ") TO (" + literal(to) + ")"
		from2, to2, _, err := parseBound(again)
		if err != nil || !from2.Equal(from.Truncate(time.Microsecond)) || !to2.Equal(to.Truncate(time.Microsecond)) {
			t.Errorf("%q was read as %v to %v, and %q as %v to %v, %v", s, from, to, again, from2, to2, err)
		}
	})
}

// TestGapsFillTheTime lays what gaps gives between partitions of any bounds:
// afterwards every moment asked for is in exactly one.
func TestGapsFillTheTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		base := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		// Partitions that are there already: any cuts, some of the pieces.
		cuts := rapid.SliceOfNDistinct(rapid.IntRange(0, 40*24), 0, 12, rapid.ID).Draw(t, "cuts")
		slices.Sort(cuts)
		var have []Partition
		for i := 0; i+1 < len(cuts); i++ {
			if rapid.Bool().Draw(t, "piece") {
				have = append(have, Partition{From: base.Add(time.Duration(cuts[i]) * time.Hour), To: base.Add(time.Duration(cuts[i+1]) * time.Hour)})
			}
		}
		if len(have) > 0 && rapid.Bool().Draw(t, "no end") {
			have[len(have)-1].To = time.Time{}
		}
		if len(have) > 0 && rapid.Bool().Draw(t, "no beginning") {
			have[0].From = time.Time{}
		}
		have = append(have, Partition{Default: true})
		period := rapid.SampledFrom([]Period{Day, Hour, Week, Month}).Draw(t, "period")
		first := base.Add(time.Duration(rapid.IntRange(0, 20*24*60).Draw(t, "first")) * time.Minute)
		until := first.Add(time.Duration(rapid.IntRange(0, 15*24*60).Draw(t, "length")) * time.Minute)
		made := gaps(have, period, first, until)
		all := slices.Concat(have, made)
		for moment := period.Start(first); moment.Before(until); moment = moment.Add(30 * time.Minute) {
			holds := 0
			for _, p := range all {
				if !p.Default && !moment.Before(p.From) && (p.To.IsZero() || moment.Before(p.To)) {
					holds++
				}
			}
			if holds != 1 {
				t.Fatalf("%v is in %d partitions, want 1: %v", moment, holds, all)
			}
		}
		for _, p := range made {
			if !period.Start(p.From).Equal(period.Start(p.To.Add(-time.Nanosecond))) {
				t.Fatalf("a partition of a %v was made from %v to %v", period, p.From, p.To)
			}
		}
		if again := gaps(all, period, first, until); len(again) > 0 {
			t.Fatalf("asked again: %v", again)
		}
	})
}

func TestOrder(t *testing.T) {
	t.Parallel()
	a := Partition{Name: "a"}
	b := Partition{Name: "b", From: at(t, "2026-11-24 00:00:00")}
	rest := Partition{Name: "rest", Default: true}
	got := []Partition{rest, b, a}
	slices.SortFunc(got, order)
	if diff := cmp.Diff([]Partition{a, b, rest}, got); diff != "" {
		t.Error(diff)
	}
}

func TestQuoteLiteral(t *testing.T) {
	t.Parallel()
	if got, want := quoteLiteral(`it's a \ here`), ` E'it''s a \\ here'`; got != want {
		t.Errorf("quoteLiteral = %s, want %s", got, want)
	}
}
