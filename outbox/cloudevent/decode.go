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
// The Event shares its Data with the record. Of a header that stands twice,
// CloudEvents has no second meaning: the first one counts as the attribute,
// and the others stay in Headers.
func Decode(r *kgo.Record) (Event, error) {
	e := Event{Data: r.Value}
	var version string
	seen := make(map[string]bool, len(r.Headers))
	for _, h := range r.Headers {
		value := string(h.Value)
		if seen[h.Key] {
			e.Headers = append(e.Headers, Header{Name: h.Key, Value: value})
			continue
		}
		seen[h.Key] = true
		var err error
		switch h.Key {
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
		default:
			e.Headers = append(e.Headers, Header{Name: h.Key, Value: value})
		}
		if err != nil {
			return Event{}, &AttributeError{Header: h.Key, Value: value, Reason: err.Error()}
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

// count reads a whole number from 1, with leading zeros or without.
func count(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || s[0] == '+' {
		return 0, fmt.Errorf("want a whole number from 1")
	}
	return n, nil
}
