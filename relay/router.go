package relay

import (
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
	"github.com/seed-048de892/walpost/relay/lsn"
)

// UnknownTopic gets the events whose row names no topic.
const UnknownTopic = "unknown.events"

const (
	// slabBytes, slabRecords and slabHeaders are how much memory is allocated
	// at once for records that follow each other. They are acknowledged
	// together and freed together.
	slabBytes   = 64 << 10
	slabRecords = 64
	slabHeaders = 16 * slabRecords

	// largeRow is from where a row gets memory of its own, so that it does not
	// waste the rest of a slab.
	largeRow = slabBytes / 4

	// overhead is what a record takes in memory and on the wire beside its
	// bytes, roughly: the kgo.Record, its headers' descriptors, framing.
	overhead = 800
)

// A router makes records of rows. It belongs to one goroutine.
type router struct {
	source     string
	generation int64

	names   names
	headers headerReader

	bytes   []byte
	records []kgo.Record
	slab    []kgo.RecordHeader
	scratch []byte
}

// route gives the record of r, the index-th of the transaction at commit. The
// record owns its memory: r may be overwritten afterwards. An error says what
// is wrong with the event.
func (o *router) route(r *row, commit lsn.Pos, index, sequence int64) (*kgo.Record, error) {
	contentType, headers, err := o.headers.read(r)
	if err != nil {
		return nil, err
	}
	if r.AggregateVersion < 0 {
		return nil, fmt.Errorf("aggregate_version is %d", r.AggregateVersion)
	}
	if err := checkTime(r.createdAt); err != nil {
		return nil, err
	}
	scratch := outbox.ID(r.ID).Append(o.scratch[:0])
	idEnd := len(scratch)
	scratch = strconv.AppendInt(scratch, o.generation, 10)
	scratch = append(commit.Append(append(scratch, '/')), '/')
	scratch = strconv.AppendInt(scratch, index, 10)
	o.scratch = scratch

	// The strings live in the stream's buffer and in scratch only until
	// AppendHeaders has copied them.
	event := cloudevent.Event{
		ID:               view(scratch[:idEnd]),
		Source:           o.source,
		Type:             r.Type,
		Subject:          r.AggregateID,
		Time:             r.createdAt,
		ContentType:      contentType,
		Sequence:         sequence,
		AggregateType:    r.AggregateType,
		AggregateVersion: r.AggregateVersion,
		Position:         view(scratch[idEnd:]),
		Headers:          headers,
	}
	record := o.newRecord()
	record.Topic = o.names.get(r.Topic)
	if record.Topic == "" {
		record.Topic = UnknownTopic
	}
	record.Timestamp = r.createdAt

	// An upper bound: the aggregate's id is key and subject, headers shrink
	// when their JSON is read, and the other attributes take 200 bytes at most.
	need := len(r.Payload) + 2*len(r.AggregateID) + len(r.json) + len(r.Type) + len(r.AggregateType) + len(o.source) + 256
	for i := range r.Headers {
		need += len(r.Headers[i].Value)
	}
	buf := o.room(need)
	start := len(buf)
	buf = append(buf, r.AggregateID...)
	record.Key = buf[start:len(buf):len(buf)]
	start = len(buf)
	buf = append(buf, r.Payload...)
	record.Value = buf[start:len(buf):len(buf)]

	if cap(o.slab)-len(o.slab) < 16+len(headers) {
		o.slab = make([]kgo.RecordHeader, 0, slabHeaders+len(headers))
	}
	first := len(o.slab)
	o.slab, buf = cloudevent.AppendHeaders(o.slab, buf, &event)
	record.Headers = o.slab[first:len(o.slab):len(o.slab)]
	if need <= largeRow {
		o.bytes = buf
	}
	return record, nil
}

func (o *router) newRecord() *kgo.Record {
	if len(o.records) == 0 {
		o.records = make([]kgo.Record, slabRecords)
	}
	record := &o.records[0]
	o.records = o.records[1:]
	return record
}

// room gives a buffer with room for n more bytes.
func (o *router) room(n int) []byte {
	if n > largeRow {
		return make([]byte, 0, n)
	}
	if cap(o.bytes)-len(o.bytes) < n {
		o.bytes = make([]byte, 0, slabBytes)
	}
	return o.bytes
}

// size is what a record counts for in the budget.
func size(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value) + overhead
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}
