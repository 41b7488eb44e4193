package partition

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// boundLayout is how PostgreSQL prints a timestamptz in DateStyle ISO and time
// zone UTC, and reads it in any.
const boundLayout = "2006-01-02 15:04:05.999999-07"

// parseBound reads what pg_get_expr says of a partition's bound. A zero time
// means that there is no bound on that side.
func parseBound(s string) (from, to time.Time, isDefault bool, err error) {
	if s == "DEFAULT" {
		return from, to, true, nil
	}
	rest, ok1 := strings.CutPrefix(s, "FOR VALUES FROM (")
	low, rest, ok2 := strings.Cut(rest, ") TO (")
	high, rest, ok3 := strings.Cut(rest, ")")
	if !ok1 || !ok2 || !ok3 || rest != "" {
		return from, to, false, fmt.Errorf("bound %q: want FOR VALUES FROM ('…') TO ('…')", s)
	}
	if from, err = parseLimit(low, "MINVALUE", "'-infinity'"); err == nil {
		to, err = parseLimit(high, "MAXVALUE", "'infinity'")
	}
	if err != nil {
		return time.Time{}, time.Time{}, false, fmt.Errorf("bound %q: %w", s, err)
	}
	return from, to, false, nil
}

func parseLimit(s string, open ...string) (time.Time, error) {
	if slices.Contains(open, s) {
		return time.Time{}, nil
	}
	if len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' {
		return time.Time{}, fmt.Errorf("%s is no quoted time", s)
	}
	t, err := time.Parse(boundLayout, s[1:len(s)-1])
	if err != nil {
		return time.Time{}, err
	}
	return t.UTC(), nil
}

// literal gives t for use in a statement that takes no parameters.
func literal(t time.Time) string { return "'" + t.UTC().Format(boundLayout) + "'" }

// gaps gives what of the periods from that of first to that before until no
// partition in have holds: whole periods, and pieces of one where partitions
// of another period are in the way.
func gaps(have []Partition, period Period, first, until time.Time) []Partition {
	have = slices.DeleteFunc(slices.Clone(have), func(p Partition) bool { return p.Default })
	slices.SortFunc(have, func(a, b Partition) int { return a.From.Compare(b.From) })
	var free []Partition
	add := func(from, to time.Time) {
		if from.Before(to) {
			free = append(free, Partition{From: from, To: to})
		}
	}
	for start := period.Start(first); start.Before(until); start = period.Next(start) {
		end, at := period.Next(start), start
		for _, p := range have {
			if !p.From.Before(end) {
				break
			}
			if p.To.IsZero() {
				add(at, p.From)
				at = end
				break
			}
			if p.To.After(at) {
				add(at, p.From)
				at = p.To
			}
		}
		add(at, end)
	}
	return free
}

// order puts the partitions in the order of time, the default one last.
func order(a, b Partition) int {
	if a.Default != b.Default {
		if a.Default {
			return 1
		}
		return -1
	}
	return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Name, b.Name))
}
