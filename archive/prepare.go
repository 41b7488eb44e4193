package archive

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// versionIndex finds an aggregate's events, and is named in queries because a
// server may not see by itself that a partial index serves them.
const versionIndex = "aggregate_version"

// prepare learns the server's limits and makes the indexes.
func (w *writer) prepare(ctx context.Context) error {
	var hello struct {
		MaxWriteBatchSize int `bson:"maxWriteBatchSize"`
	}
	err := w.retry(ctx, "hello", func(ctx context.Context) error {
		return w.db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
	})
	if err != nil {
		return fmt.Errorf("ask MongoDB for its limits: %w", err)
	}
	w.maxDocuments = hello.MaxWriteBatchSize
	if w.maxDocuments == 0 {
		w.maxDocuments = 1000 // the limit of servers too old to tell
	}
	// Made again they are left alone, also by several archives at once.
	err = w.retry(ctx, "create indexes", func(ctx context.Context) error {
		return w.db.RunCommand(ctx, bson.D{
			{Key: "createIndexes", Value: eventsCollection},
			{Key: "indexes", Value: eventIndexes()},
			{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}}},
		}).Err()
	})
	if err != nil {
		return fmt.Errorf("create the indexes of %s.%s: %w", w.db.Name(), eventsCollection, err)
	}
	return nil
}

func eventIndexes() bson.A {
	ascending := func(fields ...string) (keys bson.D) {
		for _, f := range fields {
			keys = append(keys, bson.E{Key: f, Value: 1})
		}
		return keys
	}
	unique := func(name, where string, fields ...string) bson.D {
		return bson.D{
			{Key: "key", Value: ascending(fields...)},
			{Key: "name", Value: name},
			{Key: "unique", Value: true},
			{Key: "partialFilterExpression", Value: bson.D{{Key: where, Value: bson.D{{Key: "$exists", Value: true}}}}},
		}
	}
	return bson.A{
		unique(versionIndex, "eventVersion", "aggregateType", "aggregateId", "eventVersion"),
		unique("source_sequence", "seq", "source", "seq"),
		bson.D{{Key: "key", Value: bson.D{{Key: "eventType", Value: 1}, {Key: "timestamp", Value: -1}}}, {Key: "name", Value: "type_time"}},
		bson.D{{Key: "key", Value: ascending("timestamp")}, {Key: "name", Value: "time"}},
	}
}
