package cloudevent

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// timeLayout is RFC 3339 in UTC with the microseconds PostgreSQL keeps, always
// six digits, so that times sort as text too.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// sequenceDigits is how wide a sequence is written: the digits of the largest
// int64.
const sequenceDigits = 19

// Record gives e as a record for topic: its key is the subject, its timestamp
// the event's time. The value is e.Data itself, not a copy.
func Record(topic string, e *Event) *kgo.Record {
	headers, _ := AppendHeaders(nil, nil, e)
	return &kgo.Record{
		Topic:     topic,
		Key:       []byte(e.Subject),
		Value:     e.Data,
		Timestamp: e.Time,
		Headers:   headers,
	}
}

// AppendHeaders appends the headers of e to headers and the bytes of their
// values to buf, and returns both longer. The values appended to headers point
// into the returned buf, never into e: whoever encodes many events in turn
// gives a large buf, allocates nothing, and may reuse what e pointed to.
func AppendHeaders(headers []kgo.RecordHeader, buf []byte, e *Event) ([]kgo.RecordHeader, []byte) {
	add := func(name string, start int) {
		headers = append(headers, kgo.RecordHeader{Key: name, Value: buf[start:len(buf):len(buf)]})
	}
	text := func(name, value string) {
		start := len(buf)
		buf = append(buf, value...)
		add(name, start)
	}
	text(HeaderSpecVersion, SpecVersion)
	text(HeaderID, e.ID)
	text(HeaderSource, e.Source)
	text(HeaderType, e.Type)
	text(HeaderSubject, e.Subject)
	start := len(buf)
	buf = e.Time.UTC().AppendFormat(buf, timeLayout)
	add(HeaderTime, start)
	if e.ContentType == "" {
		text(HeaderContentType, DefaultContentType)
	} else {
		text(HeaderContentType, e.ContentType)
	}
	if e.Sequence != 0 {
		start := len(buf)
		buf = appendSequence(buf, e.Sequence)
		add(HeaderSequence, start)
	}
	if e.AggregateType != "" {
		text(HeaderAggregateType, e.AggregateType)
	}
	if e.AggregateVersion != 0 {
		start := len(buf)
		buf = strconv.AppendInt(buf, e.AggregateVersion, 10)
		add(HeaderAggregateVersion, start)
	}
	if e.Position != "" {
		text(HeaderPosition, e.Position)
	}
	for _, h := range e.Headers {
		text(h.Name, h.Value)
	}
	return headers, buf
}

func appendSequence(dst []byte, n int64) []byte {
	var digits [sequenceDigits]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(dst, digits[:]...)
}
