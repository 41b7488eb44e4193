package write_test

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
)

func emitPaths(links []link) []path {
	all := pgxPath("outbox_emit", links, func(tx pgx.Tx) transaction { return emitTx{pgxTx{tx}} })
	for i := range all {
		all[i].sqlOnly = true
	}
	return all
}

type emitTx struct{ pgxTx }

func (t emitTx) write(ctx context.Context, events []outbox.Event) error {
	for i := range events {
		e := &events[i]
		var version *int64 // where there is none, one path of two: 0, and NULL
		if e.AggregateVersion != 0 || i%2 == 0 {
			version = &e.AggregateVersion
		}
		var headers *string
		if e.Headers != nil {
			b, err := json.Marshal(e.Headers)
			if err != nil {
				return err
			}
			text := strings.ReplaceAll(string(b), `\ufffd`, "\xff") // what Marshal put for no UTF-8
			headers = &text
		}
		payload := e.Payload
		if payload == nil {
			payload = []byte{}
		}
		err := t.tx.QueryRow(ctx, `select outbox_emit($1, $2, $3, $4, $5, $6::bytea, $7::jsonb)`,
			e.Topic, e.AggregateType, e.AggregateID, version, e.Type, payload, headers).Scan(&e.ID)
		if err != nil {
			return err
		}
	}
	return nil
}
