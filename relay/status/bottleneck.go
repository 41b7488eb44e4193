package status

import (
	"fmt"
	"strings"
)

// What holds a relay back.
const (
	None      = "none"      // it has caught up
	Relay     = "relay"     // none runs, or it reads slower than the walsender sends
	Kafka     = "kafka"     // it takes records slower than the relay reads
	Walsender = "walsender" // it decodes, one process for a slot
	Reading   = "relay or kafka"
	Standby   = "standby" // the walsender waits for one, by synchronized_standby_slots
	Paused    = "paused"
	Lost      = "lost"
)

// late is from how many seconds on events are late although the walsender has
// sent all there is.
const late = 2

// decide says what holds the relay back, from what was seen.
func (s *Status) decide() {
	set := func(what, next, format string, args ...any) {
		s.Bottleneck, s.Next, s.Why = what, next, fmt.Sprintf(format, args...)
	}
	if s.Lost != "" {
		set(Lost, "relay recover", "%s", s.Lost)
		return
	}
	if s.Reader == nil {
		if s.Ops != nil && !s.Ops.Ready {
			set(Relay, "relay check", "nobody reads the slot; the relay says: %s", s.Ops.Message)
			return
		}
		set(Relay, "relay check, and relay run", "nobody reads the slot")
		return
	}
	if s.Ops != nil && s.Ops.Paused {
		set(Paused, "curl -X POST …/resume on the relay's machine", "somebody has paused the relay")
		return
	}
	all := 0
	waits := make(map[string]int) // PostgreSQL 17 has changed the case of names
	for event, n := range s.Reader.Waits {
		waits[strings.ToLower(event)] += n
		all += n
	}
	share := func(events ...string) (n int) {
		for _, e := range events {
			n += waits[strings.ToLower(e)]
		}
		return n * 100 / max(all, 1)
	}
	idle, writes, confirms := share("WalSenderWaitForWAL", "WalSenderMain"), share("WalSenderWriteData"), share("WaitForStandbyConfirmation")
	switch {
	case all == 0:
		set(None, "", "the walsender has gone while it was watched: look again")
	case confirms >= 50:
		set(Standby, "start the standbys that synchronized_standby_slots names", "the walsender waited for a standby in %d %% of looks", confirms)
	case idle >= 50 && s.LagSeconds != nil && *s.LagSeconds >= late:
		set(Kafka, "look at the brokers; relay check", "the walsender has sent everything, and Kafka has not acknowledged it for %.1f s", *s.LagSeconds)
	case idle >= 50:
		set(None, "", "the walsender waited for new log in %d %% of looks", idle)
	case writes >= 50 && s.Ops == nil:
		set(Reading, "--ops http://… says which of the two", "the walsender waited for the relay to read in %d %% of looks", writes)
	case writes >= 50 && s.Ops.Buffered*2 >= s.Ops.Limit:
		set(Kafka, "look at the brokers; relay check", "%.0f of %.0f buffered bytes wait for Kafka", s.Ops.Buffered, s.Ops.Limit)
	case writes >= 50:
		set(Relay, "give the relay more CPU", "the walsender waited for the relay to read in %d %% of looks, and %.0f of %.0f buffered bytes wait for Kafka", writes, s.Ops.Buffered, s.Ops.Limit)
	default:
		set(Walsender, "pack events into fewer rows (outbox.Packed); keep other writes out of this cluster", "the walsender decoded in %d %% of looks", 100-idle-writes)
	}
}
