package partition

import (
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"
)

// A Period is how much time one partition holds. Periods begin at full hours
// and at midnight in UTC, whatever the time zone of session and machine.
type Period uint8

// The periods.
const (
	Day   Period = iota // the zero Period
	Hour                // for tables that must shed rows within a day
	Week                // from Monday
	Month               // from the first
)

// Start gives the beginning of the period that t is in.
func (p Period) Start(t time.Time) time.Time {
	t = t.UTC()
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	switch p {
	case Hour:
		return day.Add(time.Duration(t.Hour()) * time.Hour)
	case Week:
		return day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	case Month:
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	default:
		return day
	}
}

// Next gives the beginning of the period after the one that t is in.
func (p Period) Next(t time.Time) time.Time {
	start := p.Start(t)
	switch p {
	case Hour:
		return start.Add(time.Hour)
	case Week:
		return start.AddDate(0, 0, 7)
	case Month:
		return start.AddDate(0, 1, 0)
	default:
		return start.AddDate(0, 0, 1)
	}
}

func (p Period) String() string {
	switch p {
	case Day:
		return "day"
	case Hour:
		return "hour"
	case Week:
		return "week"
	case Month:
		return "month"
	default:
		return fmt.Sprintf("Period(%d)", uint8(p))
	}
}

// MarshalText gives the name, as String does.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText takes day, hour, week or month.
func (p *Period) UnmarshalText(text []byte) error {
	for _, known := range []Period{Day, Hour, Week, Month} {
		if string(text) == known.String() {
			*p = known
			return nil
		}
	}
	return fmt.Errorf("period %q: use hour, day, week or month", text)
}

// maxIdentifier is the longest name PostgreSQL keeps; it cuts longer ones.
const maxIdentifier = 63

// Name gives the name of the partition of table that begins at from:
// outbox_p20261124, outbox_p20261124_13 for hours. Attached partitions begin
// at different times, so their names differ. (While a detached one still has
// the name, Make appends _2 and so on.) Where the whole would be too long
// for PostgreSQL, the table's name is cut and a checksum of it put in.
func (p Period) Name(table string, from time.Time) string {
	from = from.UTC()
	layout := "_p20060102"
	switch {
	case p == Hour && from.Equal(Hour.Start(from)):
		layout += "_15"
	case !from.Equal(Day.Start(from)):
		layout += "_150405.000000" // behind a partition that somebody else made
	}
	return fit(table, strings.ReplaceAll(from.Format(layout), ".", "_"))
}

// fit appends suffix to a table's name.
func fit(table, suffix string) string {
	if len(table)+len(suffix) <= maxIdentifier {
		return table + suffix
	}
	suffix = fmt.Sprintf("_%08x", crc32.ChecksumIEEE([]byte(table))) + suffix
	head := table[:maxIdentifier-len(suffix)]
	for !utf8.ValidString(head) && utf8.ValidString(table) {
		head = head[:len(head)-1]
	}
	return head + suffix
}
