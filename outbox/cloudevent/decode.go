package cloudevent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An AttributeError says which attribute keeps a record from being an event.
type AttributeError struct {
	Header string
	Value  string // what stood there; empty where the header is missing
	Reason string
}

func (e *AttributeError) Error() string {
	return fmt.Sprintf("header %s %q: %s", e.Header, e.Value, e.Reason)
}

// Decode reads a record. Records of any CloudEvents 1.0 producer in binary
// mode are read; what walpost adds may be missing and is then zero. A record
// that is not such an event gives an [*AttributeError] for the first attribute
// at fault.
//
// The Event shares its Data with the record and nothing else; its strings share
// one piece of memory. Of a header that stands twice, CloudEvents has no second
// meaning: the first one counts as the attribute, and the others stay in
// Headers.
func Decode(r *kgo.Record) (Event, error) {
	e := Event{Data: r.Value}
	var version string
	var seen uint // the attributes that have been read, by their bits
	values := valuesOf(r.Headers)
	for i := range r.Headers {
		name, value := r.Headers[i].Key, values[:len(r.Headers[i].Value)]
		values = values[len(value):]
		bit := attribute(name)
		if bit == 0 || seen&bit != 0 {
			if e.Headers == nil {
				e.Headers = make([]Header, 0, others(r.Headers[i:], seen))
			}
			e.Headers = append(e.Headers, Header{Name: name, Value: value})
			continue
		}
		seen |= bit
		var err error
		switch name {
		case HeaderSpecVersion:
			version = value
		case HeaderID:
			e.ID = value
		case HeaderSource:
			e.Source = value
		case HeaderType:
			e.Type = value
		case HeaderSubject:
			e.Subject = value
		case HeaderTime:
			e.Time, err = time.Parse(time.RFC3339Nano, value)
		case HeaderContentType:
			e.ContentType = value
		case HeaderSequence:
			e.Sequence, err = count(value)
		case HeaderAggregateType:
			e.AggregateType = value
		case HeaderAggregateVersion:
			e.AggregateVersion, err = count(value)
		case HeaderPosition:
			e.Position = value
		}
		if err != nil {
			return Event{}, &AttributeError{Header: name, Value: value, Reason: err.Error()}
		}
	}
	if strings.HasPrefix(strings.ToLower(e.ContentType), "application/cloudevents") {
		return Event{}, &AttributeError{Header: HeaderContentType, Value: e.ContentType, Reason: "structured mode is not read, only binary mode"}
	}
	if version != SpecVersion {
		return Event{}, &AttributeError{Header: HeaderSpecVersion, Value: version, Reason: "want " + SpecVersion}
	}
	for _, required := range [...]Header{{HeaderID, e.ID}, {HeaderSource, e.Source}, {HeaderType, e.Type}} {
		if required.Value == "" {
			return Event{}, &AttributeError{Header: required.Name, Reason: "is required"}
		}
	}
	if e.Time.IsZero() {
		e.Time = r.Timestamp
	}
	return e, nil
}

// valuesOf gives the values of all headers in one string, which costs one
// allocation where a string of each would cost one each.
func valuesOf(headers []kgo.RecordHeader) string {
	n := 0
	for i := range headers {
		n += len(headers[i].Value)
	}
	var b strings.Builder
	b.Grow(n)
	for i := range headers {
		b.Write(headers[i].Value)
	}
	return b.String()
}

// attribute gives the bit of an attribute's header, and 0 for any other.
func attribute(name string) uint {
	switch name {
	case HeaderSpecVersion:
		return 1 << 0
	case HeaderID:
		return 1 << 1
	case HeaderSource:
		return 1 << 2
	case HeaderType:
		return 1 << 3
	case HeaderSubject:
		return 1 << 4
	case HeaderTime:
		return 1 << 5
	case HeaderContentType:
		return 1 << 6
	case HeaderSequence:
		return 1 << 7
	case HeaderAggregateType:
		return 1 << 8
	case HeaderAggregateVersion:
		return 1 << 9
	case HeaderPosition:
		return 1 << 10
	default:
		return 0
	}
}

// others counts the headers that go to Event.Headers, once those in seen have
// been read.
func others(headers []kgo.RecordHeader, seen uint) int {
	n := 0
	for i := range headers {
		bit := attribute(headers[i].Key)
		if bit == 0 || seen&bit != 0 {
			n++
		}
		seen |= bit
	}
	return n
}

// count reads a whole number from 1, with leading zeros or without.
func count(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || s[0] == '+' {
		return 0, fmt.Errorf("want a whole number from 1")
	}
	return n, nil
}
