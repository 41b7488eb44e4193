package inbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// maxError bounds the error that is kept with a dead letter; the beginning
// says what it was.
const maxError = 16 << 10

// parkSQL puts an event into inbox_dead: behind what is there of its key, or
// as the first where $8 says that it failed. The row is new in the order of
// ids, for whoever inserts holds the key's lock.
const parkSQL = `with behind as (select exists (select from inbox_dead where consumer_group = $1 and ordering_key = $7 and event_id <> $2) as yes),` +
	` done as (select exists (select from inbox where event_id = $2 and consumer_group = $1 and event_time = $3)` +
	` or exists (select from inbox_dead where event_id = $2 and consumer_group = $1) as yes),` +
	` added as (insert into inbox_dead (consumer_group, event_id, event_time, topic, partition, "offset", ordering_key, state,` +
	` error, attempts, type, record_time, key, header_names, header_values, payload)` +
	` select $1::text, $2::text, $3::timestamptz, $4::text, $5::integer, $6::bigint, $7::text, case when b.yes then 'waiting' else 'dead' end,` +
	` $9::text, $10::integer, $11::text, $12::timestamptz, $13::bytea, $14::text[], $15::bytea[], $16::bytea` +
	` from behind b, done d where not d.yes and (b.yes or $8::boolean) on conflict (event_id, consumer_group) do nothing returning state)` +
	` select coalesce((select state from added), ''), (select yes from done)`

// park puts e into inbox_dead: as a dead letter when cause is not nil, and
// behind those of its key in any case. Without a cause, and with nothing left
// to wait behind, it does nothing and says unblocked. Errors are PostgreSQL's.
func (in *Inbox) park(ctx context.Context, e *event, cause error, attempts int) (outcome, error) {
	var reason *string
	if cause != nil {
		s := storableError(cause)
		reason = &s
	}
	names, values := storableHeaders(e.record.Headers)
	var batch pgx.Batch
	// Read committed, so that the look is newer than the lock.
	batch.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	batch.Queue(lockSQL, in.cfg.Group, e.key)
	batch.Queue(parkSQL, append(in.claimArgs(e), e.key, cause != nil, reason, attempts, text(e.Type),
		storable(e.record.Timestamp), e.record.Key, names, values, e.record.Value)...)

	conn, err := in.cfg.Pool.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Release()
	results := conn.SendBatch(ctx, &batch)
	var state string
	var done bool
	for range 2 {
		_, err = results.Exec()
		if err != nil {
			break
		}
	}
	if err == nil {
		err = results.QueryRow().Scan(&state, &done)
	}
	if err = errors.Join(err, results.Close()); err != nil {
		rollback(ctx, results.Tx())
		return 0, fmt.Errorf("put into inbox_dead: %w", err)
	}
	if err := results.Tx().Commit(ctx); err != nil {
		return 0, fmt.Errorf("put into inbox_dead: %w", err)
	}
	switch {
	case state == StateDead:
		return dead, nil
	case state == StateWaiting:
		return waiting, nil
	case done || cause != nil:
		return duplicate, nil
	default:
		return unblocked, nil
	}
}

// storableError is err as text that PostgreSQL takes.
func storableError(err error) string {
	s := strings.ReplaceAll(err.Error(), "\x00", `\x00`)
	return strings.ToValidUTF8(s[:min(len(s), maxError)], "\uFFFD")
}

// storableHeaders are the columns of headers. Kafka's names are any bytes; one
// that is no text is kept in hex.
func storableHeaders(headers []kgo.RecordHeader) (names []string, values [][]byte) {
	names, values = split(headers)
	for i, name := range names {
		if !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 {
			names[i] = `\x` + hex.EncodeToString([]byte(name))
		}
	}
	return names, values
}
