package archive

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Reasons for which a record is in quarantine.
const (
	reasonNotAnEvent       = "not_an_event"      // it is no CloudEvent in binary mode
	reasonIDConflict       = "id_conflict"       // an event with its id and another content is archived
	reasonVersionConflict  = "version_conflict"  // another event has made this version of the aggregate
	reasonSequenceConflict = "sequence_conflict" // another event has this sequence of the source
	reasonRefused          = "refused"           // MongoDB refuses the document for what is in it
)

// Kinds of redelivery.
const (
	redeliveredByConsumer = "consumed_again"  // the same record of Kafka: its offset had not been committed
	redeliveredByProducer = "published_again" // another record with the same event
)

// codeDuplicateKey is MongoDB's code for a document that breaks a unique index.
const codeDuplicateKey = 11000

// documentCodes are MongoDB's codes for a document that it will never store:
// bad value, failed to parse, invalid BSON, dollar-prefixed or empty or dotted
// field name, validation failed, key too long, too large.
var documentCodes = []int{2, 9, 22, 52, 55, 57, 121, 10334, 17280, 17419, 17420}

type verdictKind int

const (
	verdictWritten     verdictKind = iota // by an earlier attempt of ours
	verdictRedelivered                    // archived before; detail is the kind
	verdictConflict                       // to quarantine, with reason and detail
	verdictAgain                          // to be tried again, without eventData where there is a reason
)

// A verdict says what is to become of a document that was refused.
type verdict struct {
	index  int // of the command's items
	kind   verdictKind
	reason string
	detail string
}

// judge looks at every refused document of c. repeated says that an attempt
// before may have stored some of them without our knowing.
//
// A server checks unique indexes in an order of its own, so what the error
// names does not tell whether the event itself is archived already: that is
// always looked up.
func (w *writer) judge(ctx context.Context, c *command, refused []mongo.WriteError, repeated bool) ([]verdict, error) {
	if len(refused) == 0 {
		return nil, nil
	}
	var ids []string
	for _, e := range refused {
		if e.Code == codeDuplicateKey {
			ids = append(ids, c.items[e.Index].id)
		}
	}
	stored, err := w.lookUp(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look up %d events that are archived already: %w", len(ids), err)
	}
	verdicts := make([]verdict, 0, len(refused))
	for i := range refused {
		e := &refused[i]
		it := &c.items[e.Index]
		v := verdict{index: e.Index}
		switch s, found := stored[it.id]; {
		case e.Code != codeDuplicateKey && !slices.Contains(documentCodes, e.Code):
			return nil, fmt.Errorf("MongoDB refuses event %s of %s/%d/%d: %w", it.id, it.record.Topic, it.record.Partition, it.record.Offset, e)
		case e.Code != codeDuplicateKey && it.reason == "":
			v.kind, v.reason = verdictAgain, reasonRefused
		case e.Code != codeDuplicateKey:
			v.kind, v.reason, v.detail = verdictConflict, reasonRefused, e.Message
		case found:
			v.kind, v.reason, v.detail = s.compare(c, it, repeated)
		default:
			v.kind, v.reason, v.detail = brokenIndex(e)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

// stored is what an archived event is compared by.
type stored struct {
	Hash  []byte `bson:"hash"`
	Kafka struct {
		Topic     string `bson:"topic"`
		Partition int32  `bson:"partition"`
		Offset    int64  `bson:"offset"`
	} `bson:"kafka"`
}

func (s *stored) compare(c *command, it *item, repeated bool) (kind verdictKind, reason, detail string) {
	r := it.record
	sameRecord := s.Kafka.Topic == r.Topic && s.Kafka.Partition == r.Partition && s.Kafka.Offset == r.Offset
	switch {
	case !bytes.Equal(s.Hash, c.hash(it)):
		return verdictConflict, reasonIDConflict, fmt.Sprintf("event %s is archived with hash %x from %s/%d/%d; this one has hash %x",
			it.id, s.Hash, s.Kafka.Topic, s.Kafka.Partition, s.Kafka.Offset, c.hash(it))
	case sameRecord && repeated:
		return verdictWritten, "", ""
	case sameRecord:
		return verdictRedelivered, "", redeliveredByConsumer
	default:
		return verdictRedelivered, "", redeliveredByProducer
	}
}

// brokenIndex tells which index an event breaks that is not archived itself.
func brokenIndex(e *mongo.WriteError) (kind verdictKind, reason, detail string) {
	pattern, _ := e.Raw.Lookup("keyPattern").DocumentOK()
	has := func(field string) bool {
		_, err := pattern.LookupErr(field)
		return err == nil
	}
	switch {
	case has("eventVersion"):
		return verdictConflict, reasonVersionConflict, e.Message
	case has("seq"):
		return verdictConflict, reasonSequenceConflict, e.Message
	default:
		// Its own id: it was removed between the insert and the look.
		return verdictAgain, "", ""
	}
}

// lookUp finds the archived events among ids.
func (w *writer) lookUp(ctx context.Context, ids []string) (map[string]*stored, error) {
	found := make(map[string]*stored, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	events := w.db.Collection(eventsCollection)
	filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}}
	project := options.Find().SetProjection(bson.D{{Key: "hash", Value: 1}, {Key: "kafka", Value: 1}})
	err := w.retry(ctx, "look up events", func(ctx context.Context) error {
		clear(found)
		cursor, err := events.Find(ctx, filter, project)
		if err != nil {
			return err
		}
		var docs []struct {
			ID     string `bson:"_id"`
			Stored stored `bson:",inline"` // the driver leaves out an embedded type that is not exported
		}
		if err := cursor.All(ctx, &docs); err != nil {
			return err
		}
		for i := range docs {
			found[docs[i].ID] = &docs[i].Stored
		}
		return nil
	})
	return found, err
}
