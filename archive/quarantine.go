package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// hold appends the record to w.held. It fails only where no document can hold
// the record.
func (w *writer) hold(r *kgo.Record, reason, detail string, at time.Time) error {
	id := quarantineID(r)
	before := len(w.held.buf)
	w.held.open()
	start := len(w.held.buf)
	w.held.buf = appendQuarantined(w.held.buf, id, r, reason, detail, at)
	if size := len(w.held.buf) - start; size > maxDocument {
		w.held.buf = w.held.buf[:before]
		return fmt.Errorf("record %s/%d/%d takes %d bytes, more than the %d of a MongoDB document: it cannot be archived",
			r.Topic, r.Partition, r.Offset, size, maxDocument)
	}
	w.held.items = append(w.held.items, item{record: r, id: id, start: start, end: len(w.held.buf), reason: reason})
	return nil
}

// quarantineID is topic/partition/offset/hash: the same for the same record,
// and another for what stands at that offset after the topic was made anew.
func quarantineID(r *kgo.Record) string {
	sha := sha256.New()
	var length [8]byte
	frame := func(b []byte) {
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		sha.Write(length[:])
		sha.Write(b)
	}
	frame(r.Key)
	frame(r.Value)
	for _, h := range r.Headers {
		frame([]byte(h.Key))
		frame(h.Value)
	}
	return fmt.Sprintf("%s/%d/%d/%s", r.Topic, r.Partition, r.Offset, hex.EncodeToString(sha.Sum(nil)[:8]))
}

// appendQuarantined appends the record as it came. A nil key, value or
// header value, which Kafka tells from an empty one, is left out.
func appendQuarantined(dst []byte, id string, r *kgo.Record, reason, detail string, at time.Time) []byte {
	start, b := bsoncore.AppendDocumentStart(dst)
	b = bsoncore.AppendStringElement(b, "_id", id)
	b = bsoncore.AppendStringElement(b, "topic", r.Topic)
	b = bsoncore.AppendInt32Element(b, "partition", r.Partition)
	b = bsoncore.AppendInt64Element(b, "offset", r.Offset)
	if r.Key != nil {
		b = bsoncore.AppendBinaryElement(b, "key", binaryGeneric, r.Key)
	}
	if r.Value != nil {
		b = bsoncore.AppendBinaryElement(b, "value", binaryGeneric, r.Value)
	}
	headers, b := bsoncore.AppendArrayElementStart(b, "headers")
	for i, h := range r.Headers {
		b = appendIndexed(b, bsoncore.TypeEmbeddedDocument, i)
		var header int32
		header, b = bsoncore.AppendDocumentStart(b)
		b = appendText(b, "name", h.Key)
		if h.Value != nil {
			b = bsoncore.AppendBinaryElement(b, "value", binaryGeneric, h.Value)
		}
		b, _ = bsoncore.AppendDocumentEnd(b, header)
	}
	b, _ = bsoncore.AppendArrayEnd(b, headers)
	b = bsoncore.AppendDateTimeElement(b, "timestamp", r.Timestamp.UnixMilli())
	b = bsoncore.AppendStringElement(b, "reason", reason)
	b = appendText(b, "detail", detail)
	b = bsoncore.AppendDateTimeElement(b, "at", at.UnixMilli())
	b, _ = bsoncore.AppendDocumentEnd(b, start)
	return b
}
