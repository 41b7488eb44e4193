package archive

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// A command is one insert command, built by appending to a buffer that is
// reused. It is unordered, so that one refused document holds up no other, and
// waits for a majority and the journal: a command ignores the collection's and
// the client's write concern.
type command struct {
	buf       []byte
	documents int32 // where the array begins
	items     []item
}

// An item is one document of a command and what it was made of.
type item struct {
	record     *kgo.Record
	id         string
	start, end int // of the document in buf
	hashAt     int // of the hash in buf; 0 in quarantine
	reason     string
}

// begin empties c for documents of a collection.
func (c *command) begin(collection string) {
	clear(c.items) // let the records go
	c.items = c.items[:0]
	_, b := bsoncore.AppendDocumentStart(c.buf[:0])
	b = bsoncore.AppendStringElement(b, "insert", collection)
	b = bsoncore.AppendBooleanElement(b, "ordered", false)
	concern, b := bsoncore.AppendDocumentElementStart(b, "writeConcern")
	b = bsoncore.AppendStringElement(b, "w", "majority")
	b = bsoncore.AppendBooleanElement(b, "j", true)
	b, _ = bsoncore.AppendDocumentEnd(b, concern)
	c.documents, c.buf = bsoncore.AppendArrayElementStart(b, "documents")
}

// open appends what stands before the next document.
func (c *command) open() {
	c.buf = appendIndexed(c.buf, bsoncore.TypeEmbeddedDocument, len(c.items))
}

// copyOf adds a document of another command.
func (c *command) copyOf(from *command, it item) {
	c.open()
	start := len(c.buf)
	c.buf = append(c.buf, from.buf[it.start:it.end]...)
	if it.hashAt != 0 {
		it.hashAt += start - it.start
	}
	it.start, it.end = start, len(c.buf)
	c.items = append(c.items, it)
}

// finish gives the command, which is good until the next begin.
func (c *command) finish() bson.Raw {
	end := len(c.buf)
	b, _ := bsoncore.AppendArrayEnd(c.buf, c.documents)
	b, _ = bsoncore.AppendDocumentEnd(b, 0)
	c.buf = b[:end]
	return bson.Raw(b)
}

func (c *command) hash(it *item) []byte {
	return c.buf[it.hashAt : it.hashAt+32]
}
