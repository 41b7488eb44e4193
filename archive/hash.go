package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// hashVersion begins what an event's hash is made of, so that another framing
// could never give the same hash by chance.
const hashVersion = "walpost event 1\n"

// A hasher makes the hash of what must not change of an event: SHA-256 over
// hashVersion and then id, source, type, subject, aggregate type, aggregate
// version (8 bytes), content type and payload, each after its length in 8
// bytes, all numbers big-endian. Where Kafka kept the record, its sequence and
// its other headers are not part: they may differ when it is published again.
// The zero hasher is ready to use, by one goroutine.
type hasher struct {
	sha hash.Hash
	buf []byte
}

// appendHash appends the 32 bytes of the event's hash to dst.
func (h *hasher) appendHash(dst []byte, e *cloudevent.Event) []byte {
	b := append(h.buf[:0], hashVersion...)
	for _, field := range [...]string{e.ID, e.Source, e.Type, e.Subject, e.AggregateType} {
		b = appendFramed(b, field)
	}
	b = binary.BigEndian.AppendUint64(b, 8)
	b = binary.BigEndian.AppendUint64(b, uint64(e.AggregateVersion))
	b = appendFramed(b, e.ContentType)
	b = binary.BigEndian.AppendUint64(b, uint64(len(e.Data)))
	h.buf = b
	if h.sha == nil {
		h.sha = sha256.New()
	}
	h.sha.Reset()
	h.sha.Write(b)
	h.sha.Write(e.Data)
	return h.sha.Sum(dst)
}

func appendFramed(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(len(s)))
	return append(dst, s...)
}
