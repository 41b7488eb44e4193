package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

// DefaultLimit is how many letters a page of [DeadLetters.List] has at most
// where the caller names no limit.
const DefaultLimit = 100

// A Page is a part of a list.
type Page struct {
	Letters []Letter // by id
	Next    int64    // what to give as after for the next page; 0: this is the last
}

// letterColumns are of row d of inbox_dead. The payloads and headers, which
// may be large, come last and apart.
const (
	letterColumns = `d.id, d.consumer_group, d.ordering_key, d.state, d.event_id, d.event_time, d.type, d.topic, d.partition, d."offset", d.key,` +
		` coalesce(length(d.payload), 0), coalesce(d.error, ''), d.attempts, d.failed_at,` +
		` d.edited_at, d.redrive_at, d.record_time, d.starts, ` + behind
	// Of the first of a key only: to count for each letter of a long one what
	// is behind it would take the square of its length.
	behind = `case d.state when 'dead' then (select count(*) from inbox_dead w` +
		` where w.consumer_group = d.consumer_group and w.ordering_key = d.ordering_key and w.id > d.id) else 0 end`
	bodies = `d.header_names, d.header_values, d.payload, d.original_payload`
)

// fields are where letterColumns go.
func (l *Letter) fields() []any {
	return []any{
		&l.ID, &l.Group, &l.OrderingKey, &l.State, &l.EventID, &l.EventTime, &l.Type, &l.Topic, &l.Partition, &l.Offset, &l.Key,
		&l.PayloadBytes, &l.Error, &l.Attempts, &l.FailedAt,
		orZero{&l.EditedAt},
		orZero{&l.RedriveAt},
		&l.recordTime, &l.starts, &l.Behind,
	}
}

// orZero scans NULL as the zero time.
type orZero struct{ to *time.Time }

// Scan implements sql.Scanner.
func (z orZero) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*z.to = time.Time{}
	case time.Time:
		*z.to = v
	default:
		return fmt.Errorf("a %T is no time", v)
	}
	return nil
}

// List gives the letters that filter selects, by id, from behind the id after
// on. limit is the most of a page; 0 means [DefaultLimit]. The letters come
// without headers and payloads.
func (d DeadLetters) List(ctx context.Context, filter Filter, limit int, after int64) (Page, error) {
	if limit < 0 || after < 0 {
		return Page{}, fmt.Errorf("list dead letters: limit %d and after %d: both count from 0", limit, after)
	}
	if limit == 0 {
		limit = DefaultLimit
	}
	where, args, err := filter.where()
	if err != nil {
		return Page{}, fmt.Errorf("list dead letters: %w", err)
	}
	args = append(args, after, limit+1)
	sql := fmt.Sprintf("select %s from inbox_dead d where %s and d.id > $%d::bigint order by d.id limit $%d::bigint",
		letterColumns, where, len(args)-1, len(args))
	rows, err := d.DB.Query(ctx, sql, args...)
	if err != nil {
		return Page{}, fmt.Errorf("list dead letters: %w", err)
	}
	letters, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Letter, err error) {
		return l, row.Scan(l.fields()...)
	})
	if err != nil {
		return Page{}, fmt.Errorf("list dead letters: %w", err)
	}
	if len(letters) <= limit {
		return Page{Letters: letters}, nil
	}
	return Page{Letters: letters[:limit], Next: letters[limit-1].ID}, nil
}

// Get gives one letter with all that is known of it, or [ErrNoLetter].
func (d DeadLetters) Get(ctx context.Context, id int64) (Letter, error) {
	l, err := get(ctx, d.DB, id)
	if err != nil {
		return Letter{}, fmt.Errorf("read dead letter %d: %w", id, err)
	}
	return l, nil
}

// querier is a database or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func get(ctx context.Context, db querier, id int64) (l Letter, err error) {
	row := db.QueryRow(ctx, "select "+letterColumns+", "+bodies+" from inbox_dead d where d.id = $1", id)
	var names []string
	var values [][]byte
	if err := row.Scan(append(l.fields(), &names, &values, &l.Payload, &l.OriginalPayload)...); errors.Is(err, pgx.ErrNoRows) {
		return Letter{}, ErrNoLetter
	} else if err != nil {
		return Letter{}, err
	}
	if len(names) != len(values) {
		return Letter{}, fmt.Errorf("it has %d header names and %d values: the row was not written by this library", len(names), len(values))
	}
	l.Headers = make([]kgo.RecordHeader, len(names))
	for i, name := range names {
		l.Headers[i] = kgo.RecordHeader{Key: name, Value: values[i]}
	}
	return l, nil
}
