package check

import (
	"io"
	"strings"
	"text/tabwriter"
)

// A Report is what was found, in the order in which it was looked at.
type Report struct {
	Source   string    `json:"source"`
	Slot     string    `json:"slot"`
	Findings []Finding `json:"findings"`
}

// Worst is the worst level found.
func (r *Report) Worst() Level {
	worst, rank := OK, map[Level]int{OK: 0, Warning: 1, Error: 2, Broken: 3}
	for _, f := range r.Findings {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}

// WriteTo writes a table for people: what to type stands below its finding.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings {
		row := strings.ToUpper(string(f.Level)) + "\t" + f.Area + "\t" + f.Name + "\t" + f.What + "\n"
		if f.Level == OK {
			row = strings.ToLower(row[:2]) + row[2:]
		}
		if f.Next != "" {
			row += "\t\t\t-> " + f.Next + "\n"
		}
		if _, err := io.WriteString(t, row); err != nil {
			return 0, err
		}
	}
	if err := t.Flush(); err != nil {
		return 0, err
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
