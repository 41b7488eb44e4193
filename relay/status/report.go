package status

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// WriteTo writes the status for people.
func (s *Status) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("source", "%s, slot %s (%s)", s.Source, s.Slot, s.WALStatus)
	switch {
	case s.Reader == nil:
		line("relay", "nobody reads the slot")
	default:
		line("relay", "process %d of PostgreSQL, %q from %s", s.Reader.PID, s.Reader.Application, s.Reader.Client)
	}
	switch {
	case s.Ops != nil && s.Ops.Ready:
		line("", "ready, %.0f of %.0f bytes buffered, %.0f sessions restarted, %.0f dead letters", s.Ops.Buffered, s.Ops.Limit, s.Ops.Restarts, s.Ops.DeadLetters)
	case s.Ops != nil:
		line("", "not ready: %s", s.Ops.Message)
	case s.OpsErr != "":
		line("", "%s", s.OpsErr)
	}
	line("positions", "server %v, slot %v, Kafka %v", s.Server, s.Confirmed, s.Stored)
	line("sequence", "%d, generation %d", s.Sequence, s.Generation)
	seconds := "unknown"
	if s.LagSeconds != nil {
		seconds = fmt.Sprintf("%.1f s", *s.LagSeconds)
		if s.AtLeast {
			seconds += " since the position was stored"
		}
	}
	events := "unknown"
	if s.LagEvents != nil {
		events = fmt.Sprint(*s.LagEvents)
	}
	line("lag", "%s, %s, events %s", size(s.LagBytes), seconds, events)
	safe := "without bound"
	if s.SafeBytes != nil {
		safe = size(*s.SafeBytes) + " more before the slot may be lost"
	}
	line("log kept", "%s, %s", size(s.Retained), safe)
	line("rates", "%.0f events/s published, log %s/s written and %s/s confirmed", s.EventRate, size(int64(s.WALRate)), size(int64(s.ReadRate)))
	if s.Reader != nil {
		var waits []string
		for _, event := range slices.Sorted(maps.Keys(s.Reader.Waits)) {
			waits = append(waits, fmt.Sprintf("%s %d", event, s.Reader.Waits[event]))
		}
		line("walsender", "%s", strings.Join(waits, ", "))
	}
	line("bottleneck", "%s: %s", s.Bottleneck, s.Why)
	if s.Next != "" {
		line("", "-> %s", s.Next)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// size gives n bytes in a unit for people.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 10_000 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.0f %s", v, units[i])
}
