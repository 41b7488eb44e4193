package recovery

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-048de892/walpost/relay"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// A Report says what was done, or would be.
type Report struct {
	Applied bool   `json:"applied"`
	Source  string `json:"source"`
	Slot    string `json:"slot"`
	Lost    string `json:"lost"` // why the relay does not start

	Stored lsn.Pos   `json:"storedLsn"`
	Since  time.Time `json:"since,omitzero"` // zero: all rows were looked at

	Rows      int64            `json:"rows"`      // looked at
	Events    int64            `json:"events"`    // in them
	Known     int64            `json:"known"`     // of these, Kafka has
	Missing   int64            `json:"missing"`   // to be published
	Topics    map[string]int64 `json:"topics"`    // those by topic
	Uncertain map[string]int64 `json:"uncertain"` // by topic: Kafka may have had and deleted them
	Holes     int64            `json:"holes"`     // numbers without a record behind the stored position

	Published  int64   `json:"published"`
	Start      lsn.Pos `json:"startLsn,omitempty"` // of the new slot
	Generation int64   `json:"generation,omitempty"`
	Sequence   int64   `json:"sequence"` // the last one given to a record

	holes []int64
}

// counts are of the rows, without the events in packed ones.
type counts struct{ rows, events, known int64 }

func (r *Report) begin(c counts) {
	r.Rows, r.Events, r.Known, r.Missing = c.rows, c.events, c.known, 0
	r.Topics, r.Uncertain = make(map[string]int64), make(map[string]int64)
}

// packed counts an event of a packed row.
func (r *Report) packed(_ *relay.StoredRow, known bool) {
	r.Events++
	if known {
		r.Known++
	}
}

// missing counts an event that Kafka does not have, and reports whether it is
// to be published.
func (r *Report) missing(e *relay.StoredRow, doubt bool, u Uncertain) bool {
	topic := strings.Clone(topicOf(e.Topic))
	if doubt {
		r.Uncertain[topic]++
		if u == Skip {
			return false
		}
	}
	r.Missing++
	r.Topics[topic]++
	return true
}

func (r *Report) uncertain() (n int64) {
	for _, c := range r.Uncertain {
		n += c
	}
	return n
}

// next gives the number of the next record.
func (r *Report) next() int64 {
	if len(r.holes) > 0 {
		n := r.holes[0]
		r.holes = r.holes[1:]
		return n
	}
	r.Sequence++
	return r.Sequence
}

// WriteTo writes the report for people.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("source", "%s, slot %s", r.Source, r.Slot)
	line("lost", "%s", r.Lost)
	since := "all"
	if !r.Since.IsZero() {
		since = "from " + r.Since.UTC().Format(time.RFC3339) + " on"
	}
	line("rows looked at", "%d, %s", r.Rows, since)
	line("events in them", "%d", r.Events)
	line("Kafka has", "%d", r.Known)
	verb := "would publish"
	if r.Applied {
		verb = "published"
	}
	line(verb, "%d", r.Missing)
	for _, topic := range slices.Sorted(maps.Keys(r.Topics)) {
		line("  "+topic, "%d", r.Topics[topic])
	}
	for _, topic := range slices.Sorted(maps.Keys(r.Uncertain)) {
		line("uncertain", "%d in %s, of which Kafka may have deleted some after they were published", r.Uncertain[topic], topic)
	}
	line("sequence", "%d, %d numbers before it without a record", r.Sequence, r.Holes)
	if r.Applied {
		line("new slot", "at %v, generation %d", r.Start, r.Generation)
	}
	b.WriteString("\nEvents written as messages (mode WAL) are in no table: what was lost of them stays lost.\n")
	if r.Applied {
		b.WriteString("Start the relay: relay run\n")
	} else {
		b.WriteString("Nothing was changed. To do it, with every relay of this source stopped: relay recover --apply\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
