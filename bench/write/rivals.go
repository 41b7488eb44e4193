package write

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	wmessage "github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

const watermillTopic = "account_changed"

// watermillWay publishes with the default schema for PostgreSQL, whose payload
// column is JSON, and a publisher for each transaction, as its documentation
// shows. The key and the type are metadata: Watermill has no columns for them.
func watermillWay(ctx context.Context, pool *pgxpool.Pool) (way, error) {
	schema := watermillsql.DefaultPostgreSQLSchema{}
	config := watermillsql.PublisherConfig{SchemaAdapter: schema}
	queries, err := schema.SchemaInitializingQueries(watermillsql.SchemaInitializingQueriesParams{Topic: watermillTopic})
	if err != nil {
		return way{}, fmt.Errorf("watermill: %w", err)
	}
	err = inTx(ctx, pool, func(tx pgx.Tx) error {
		for _, q := range queries {
			if _, err := tx.Exec(ctx, q.Query, q.Args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return way{}, fmt.Errorf("watermill: make its table: %w", err)
	}
	table := schema.MessagesTable(watermillTopic)
	return way{name: wayWatermill, table: table, count: countTable(table), write: func(ctx context.Context, tx pgx.Tx, list []message) error {
		publisher, err := watermillsql.NewPublisher(watermillsql.TxFromPgx(tx), config, watermill.NopLogger{})
		if err != nil {
			return err
		}
		all := make([]*wmessage.Message, len(list))
		for i, m := range list {
			all[i] = wmessage.NewMessageWithContext(ctx, watermill.NewUUID(), m.payload)
			all[i].Metadata.Set("key", m.key)
			all[i].Metadata.Set("type", "AccountChanged")
		}
		return publisher.Publish(watermillTopic, all...)
	}}, nil
}

// accountChanged is a job whose arguments are the payload as it stands. The
// key is in the payload of a job, or nowhere: River has no column for it.
type accountChanged struct{ payload []byte }

func (accountChanged) Kind() string { return "account_changed" }

func (a accountChanged) MarshalJSON() ([]byte, error) { return a.payload, nil }

var _ json.Marshaler = accountChanged{}

// riverClient only inserts. notifyEvery is how often at most an insert tells
// the workers.
func riverClient(pool *pgxpool.Pool, notifyEvery time.Duration) (*river.Client[pgx.Tx], error) {
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Logger:            slog.New(slog.DiscardHandler),
		FetchCooldown:     notifyEvery,
		FetchPollInterval: max(notifyEvery, river.FetchPollIntervalDefault),
	})
	if err != nil {
		return nil, fmt.Errorf("river: %w", err)
	}
	return client, nil
}

func riverWays(pool *pgxpool.Pool) ([]way, error) {
	client, err := riverClient(pool, river.FetchCooldownDefault)
	if err != nil {
		return nil, err
	}
	return []way{
		{name: wayRiver, table: "river_job", count: countTable("river_job"), write: func(ctx context.Context, tx pgx.Tx, list []message) error {
			return riverInsert(ctx, tx, client, list)
		}},
		{name: wayRiverFast, table: "river_job", count: countTable("river_job"), write: func(ctx context.Context, tx pgx.Tx, list []message) error {
			_, err := client.InsertManyFastTx(ctx, tx, jobs(list))
			return err
		}},
	}, nil
}

// riverInsert inserts one job with InsertTx, more with InsertManyTx.
func riverInsert(ctx context.Context, tx pgx.Tx, client *river.Client[pgx.Tx], list []message) error {
	if len(list) == 1 {
		_, err := client.InsertTx(ctx, tx, accountChanged{list[0].payload}, nil)
		return err
	}
	_, err := client.InsertManyTx(ctx, tx, jobs(list))
	return err
}

func jobs(list []message) []river.InsertManyParams {
	all := make([]river.InsertManyParams, len(list))
	for i, m := range list {
		all[i].Args = accountChanged{m.payload}
	}
	return all
}
