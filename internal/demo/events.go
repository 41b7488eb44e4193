package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// A passage is the way of one committed event.
type passage struct {
	id, eventType, aggregate string

	committed    time.Time // by PostgreSQL, as its log has it
	acknowledged time.Time // by Kafka, zero if not yet
	archived     time.Time // archivedAt of the document, zero if not in MongoDB
}

// passages gives the newest limit events of the outbox, in the order of their
// writing, and how far each has come.
func (s *stack) passages(ctx context.Context, limit int) ([]*passage, error) {
	// The table has no index: for a demo's few rows a scan is quick enough.
	rows, err := s.pool.Query(ctx, `
		select id::text, type, aggregate_type || '/' || aggregate_id, committed from (
			select *, pg_xact_commit_timestamp(xmin) as committed from outbox order by created_at desc, id desc limit $1
		) newest order by created_at, id`, limit)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*passage, error) {
		var p passage
		return &p, row.Scan(&p.id, &p.eventType, &p.aggregate, &p.committed)
	})
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	byID := make(map[string]*passage, len(all))
	ids := make(bson.A, 0, len(all))
	for _, p := range all {
		byID[p.id] = p
		ids = append(ids, p.id)
		p.acknowledged, _ = s.acks.get(p.id)
	}
	cursor, err := s.events.Find(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}},
		options.Find().SetProjection(bson.D{{Key: "archivedAt", Value: 1}}))
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	var documents []struct {
		ID         string    `bson:"_id"`
		ArchivedAt time.Time `bson:"archivedAt"`
	}
	if err := cursor.All(ctx, &documents); err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	for _, d := range documents {
		byID[d.ID].archived = d.ArchivedAt
	}
	return all, nil
}

// committedRows counts the outbox.
func (s *stack) committedRows(ctx context.Context) (n int64, err error) {
	if err := s.pool.QueryRow(ctx, `select count(*) from outbox`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the outbox: %w", err)
	}
	return n, nil
}

// measured gives the sum of a metric over its labels; of a histogram, the sum
// of what was observed and how often.
func measured(registry *prometheus.Registry, name string) (sum float64, count uint64, err error) {
	families, err := registry.Gather()
	if err != nil {
		return 0, 0, fmt.Errorf("read metric %s: %w", name, err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
			count += m.GetHistogram().GetSampleCount()
		}
	}
	return sum, count, nil
}
