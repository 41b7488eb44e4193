package archive

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/seed-048de892/walpost/archive/bsonjson"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// maxDocument is the largest document MongoDB stores.
const maxDocument = 16 << 20

// binaryGeneric is BSON's subtype of plain bytes.
const binaryGeneric = 0x00

// An encoder turns events into documents. Its scratch memory is reused; the
// zero encoder is ready to use, by one goroutine.
type encoder struct {
	hasher hasher
	json   bsonjson.Converter
}

// appendDocument appends the document of e, which came as r, to dst, and says
// where in the result the hash stands. decoded false leaves eventData out. An
// event whose names are not UTF-8 gives an error and dst as it was.
func (enc *encoder) appendDocument(dst []byte, e *cloudevent.Event, r *kgo.Record, archivedAt time.Time, decoded bool) (out []byte, hashAt int, err error) {
	for _, field := range [...]struct{ name, value string }{
		{cloudevent.HeaderID, e.ID},
		{cloudevent.HeaderSource, e.Source},
		{cloudevent.HeaderType, e.Type},
		{cloudevent.HeaderSubject, e.Subject},
		{cloudevent.HeaderAggregateType, e.AggregateType},
		{cloudevent.HeaderContentType, e.ContentType},
	} {
		if !utf8.ValidString(field.value) {
			return dst, 0, fmt.Errorf("header %s %q is not UTF-8", field.name, field.value)
		}
	}
	start, b := bsoncore.AppendDocumentStart(dst)
	b = bsoncore.AppendStringElement(b, "_id", e.ID)
	b = bsoncore.AppendStringElement(b, "source", e.Source)
	if e.Sequence != 0 {
		b = bsoncore.AppendInt64Element(b, "seq", e.Sequence)
	}
	b = appendNonEmpty(b, "aggregateType", e.AggregateType)
	b = appendNonEmpty(b, "aggregateId", e.Subject)
	if e.AggregateVersion != 0 {
		b = bsoncore.AppendInt64Element(b, "eventVersion", e.AggregateVersion)
	}
	b = bsoncore.AppendStringElement(b, "eventType", e.Type)
	if decoded && isJSON(e.ContentType) {
		before := len(b)
		b, _ = enc.json.AppendElement(b, "eventData", e.Data)
		// The payload comes first: what would push it over the limit is left out.
		if len(b)-int(start)+len(e.Data)+headersSize(r) > maxDocument {
			b = b[:before]
		}
	}
	if e.Data != nil {
		b = bsoncore.AppendBinaryElement(b, "payload", binaryGeneric, e.Data)
	}
	b = appendNonEmpty(b, "contentType", e.ContentType)
	b = bsoncore.AppendDateTimeElement(b, "timestamp", e.Time.UnixMilli())
	b = appendMetadata(b, e)
	b = appendKafka(b, e, r)
	b = appendHeaders(b, e, r)
	b = bsoncore.AppendHeader(b, bsoncore.TypeBinary, "hash")
	b = binary.LittleEndian.AppendUint32(b, 32)
	b = append(b, binaryGeneric)
	hashAt = len(b)
	b = enc.hasher.appendHash(b, e)
	b = bsoncore.AppendDateTimeElement(b, "archivedAt", archivedAt.UnixMilli())
	b, err = bsoncore.AppendDocumentEnd(b, start)
	if err != nil {
		return dst, 0, err
	}
	return b, hashAt, nil
}

func appendNonEmpty(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return bsoncore.AppendStringElement(dst, name, value)
}

// isJSON reports whether a content type promises JSON. A record without one is
// taken to: that is what most producers mean, and the conversion finds out.
func isJSON(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.TrimSpace(mediaType)
	return mediaType == "" || strings.EqualFold(mediaType, "application/json") ||
		strings.EqualFold(mediaType, "text/json") ||
		len(mediaType) > 5 && strings.EqualFold(mediaType[len(mediaType)-5:], "+json")
}

// metadataHeaders are the writer's headers that get fields of their own.
var metadataHeaders = [...]string{
	outbox.HeaderUserID, outbox.HeaderRequestID, outbox.HeaderCorrelationID, outbox.HeaderCausationID, outbox.HeaderTraceparent,
}

func appendMetadata(dst []byte, e *cloudevent.Event) []byte {
	start, b := bsoncore.AppendDocumentElementStart(dst, "metadata")
	b = bsoncore.AppendStringElement(b, "source", e.Source)
	for _, name := range metadataHeaders {
		for _, h := range e.Headers {
			if h.Name == name && utf8.ValidString(h.Value) {
				b = bsoncore.AppendStringElement(b, name, h.Value)
				break
			}
		}
	}
	b, _ = bsoncore.AppendDocumentEnd(b, start) // fails only for a start we did not take
	return b
}

func appendKafka(dst []byte, e *cloudevent.Event, r *kgo.Record) []byte {
	start, b := bsoncore.AppendDocumentElementStart(dst, "kafka")
	b = bsoncore.AppendStringElement(b, "topic", r.Topic)
	b = bsoncore.AppendInt32Element(b, "partition", r.Partition)
	b = bsoncore.AppendInt64Element(b, "offset", r.Offset)
	if r.Key != nil && string(r.Key) != e.Subject {
		b = bsoncore.AppendBinaryElement(b, "key", binaryGeneric, r.Key)
	}
	b, _ = bsoncore.AppendDocumentEnd(b, start)
	return b
}

// appendHeaders keeps what no other field holds exactly: the headers that are
// not attributes, and of the attributes the time, which a BSON date cuts to
// milliseconds, and the position. It is an array because names may repeat and
// their order may matter.
func appendHeaders(dst []byte, e *cloudevent.Event, r *kgo.Record) []byte {
	start, b := bsoncore.AppendArrayElementStart(dst, "headers")
	i := 0
	for _, h := range r.Headers {
		if h.Key == cloudevent.HeaderTime {
			b = appendHeader(b, i, h.Key, h.Value)
			i++
			break // a second one is among the event's other headers
		}
	}
	if e.Position != "" {
		b = appendHeader(b, i, cloudevent.HeaderPosition, e.Position)
		i++
	}
	for _, h := range e.Headers {
		b = appendHeader(b, i, h.Name, h.Value)
		i++
	}
	b, _ = bsoncore.AppendArrayEnd(b, start)
	return b
}

// appendHeader appends {name, value} as element i of an array, each as string
// where it is UTF-8, else as bytes.
func appendHeader[V string | []byte](dst []byte, i int, name string, value V) []byte {
	b := appendIndexed(dst, bsoncore.TypeEmbeddedDocument, i)
	start := int32(len(b))
	b = append(b, 0, 0, 0, 0)
	b = appendText(b, "name", name)
	b = appendText(b, "value", value)
	b, _ = bsoncore.AppendDocumentEnd(b, start)
	return b
}

func appendText[V string | []byte](dst []byte, name string, value V) []byte {
	if !utf8.ValidString(string(value)) {
		return bsoncore.AppendBinaryElement(dst, name, binaryGeneric, []byte(value))
	}
	return bsoncore.AppendStringElement(dst, name, string(value))
}

// appendIndexed appends type and name of an array's element i.
func appendIndexed(dst []byte, t bsoncore.Type, i int) []byte {
	dst = append(dst, byte(t))
	dst = strconv.AppendInt(dst, int64(i), 10)
	return append(dst, 0)
}

// headersSize is more than what the document holds beside eventData and
// payload once those are in.
func headersSize(r *kgo.Record) int {
	n := 2*len(r.Key) + 1024
	for _, h := range r.Headers {
		n += 2*(len(h.Key)+len(h.Value)) + 64
	}
	return n
}
