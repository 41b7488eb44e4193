package archive

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Bounds of one page of events.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// ErrNotFound says that no event of the aggregate is archived, or none that
// the question takes in.
var ErrNotFound = errors.New("no events archived")

// ErrCursor says that a cursor is none that this question gave.
var ErrCursor = errors.New("not a cursor of this list")

// A Store reads what an [Archive] wrote. It is safe for concurrent use, also
// while the archive writes.
type Store struct {
	db    *mongo.Database
	folds Folds
}

// NewStore gives a store that reads db. Aggregate types that folds does not
// name are folded by JSON Merge Patch.
func NewStore(db *mongo.Database, folds Folds) *Store {
	return &Store{db: db, folds: folds}
}

// A Page is one page of a list.
type Page struct {
	Events []Event `json:"events"`

	// Next continues behind this page; "" where nothing is left.
	Next string `json:"next,omitempty"`
}

// Events gives events of the aggregate in the order of their versions, from
// fromVersion on, limit of them at most: 0 means [DefaultLimit], and
// [MaxLimit] is the most. after continues where the page ended whose Next it
// was, else it is empty.
//
// Events without a version are not in the list. The payloads of one page may
// be large together: a page ends early rather than take much more than 16 MiB
// of them.
func (s *Store) Events(ctx context.Context, aggregateType, id string, fromVersion int64, limit int, after string) (Page, error) {
	from := fromVersion
	if after != "" {
		last, err := parseCursor(after)
		if err != nil {
			return Page{}, err
		}
		from = max(from, last+1)
	}
	switch {
	case limit == 0:
		limit = DefaultLimit
	case limit < 0 || limit > MaxLimit:
		return Page{}, fmt.Errorf("limit: must be 1 to %d, got %d", MaxLimit, limit)
	}
	page := Page{Events: []Event{}}
	bytes := 0
	err := s.each(ctx, aggregateType, id, from, int64(limit)+1, func(e *Event) (bool, error) {
		if len(page.Events) == limit || bytes > maxDocument {
			page.Next = formatCursor(page.Events[len(page.Events)-1].Version)
			return false, nil
		}
		bytes += len(e.Payload)
		page.Events = append(page.Events, *e)
		return true, nil
	})
	if err != nil {
		return Page{}, err
	}
	return page, nil
}

// each calls f with the aggregate's events in the order of their versions
// until it gives false. A limit of 0 is none.
func (s *Store) each(ctx context.Context, aggregateType, id string, from, limit int64, f func(*Event) (more bool, err error)) error {
	fail := func(err error) error {
		return fmt.Errorf("read events of %s/%s: %w", aggregateType, id, err)
	}
	cursor, err := s.db.Collection(eventsCollection).Find(ctx,
		bson.D{
			{Key: "aggregateType", Value: aggregateType},
			{Key: "aggregateId", Value: id},
			{Key: "eventVersion", Value: bson.D{{Key: "$exists", Value: true}, {Key: "$gte", Value: from}}},
		},
		options.Find().
			SetSort(bson.D{{Key: "eventVersion", Value: 1}}).
			SetProjection(bson.D{{Key: "eventData", Value: 0}}).
			SetLimit(limit).
			SetHint(versionIndex))
	if err != nil {
		if noSuchIndex(err) {
			err = s.unprepared(ctx)
		}
		if err == nil {
			return nil
		}
		return fail(err)
	}
	defer func() { _ = cursor.Close(context.WithoutCancel(ctx)) }()
	for cursor.Next(ctx) {
		var d document
		if err := cursor.Decode(&d); err != nil {
			return fail(err)
		}
		e := d.event()
		if more, err := f(&e); err != nil || !more {
			return err
		}
	}
	if err := cursor.Err(); err != nil {
		return fail(err)
	}
	return nil
}

// unprepared gives nil where the index is missing because nothing has been
// archived yet. Else somebody dropped it, and to answer that there are no
// events would be wrong.
func (s *Store) unprepared(ctx context.Context) error {
	n, err := s.db.Collection(eventsCollection).EstimatedDocumentCount(ctx)
	if err == nil && n > 0 {
		err = fmt.Errorf("index %s of %s.%s is missing; start the archive, which makes it", versionIndex, s.db.Name(), eventsCollection)
	}
	return err
}

// noSuchIndex reports whether the server knows no index of the hinted name:
// BadValue, on a collection that an archive has not prepared.
func noSuchIndex(err error) bool {
	e, ok := errors.AsType[mongo.CommandError](err)
	return ok && e.Code == 2 && strings.Contains(e.Message, "hint")
}

// A cursor is opaque so that lists may be continued by something else one day.
const cursorPrefix = "v1:"

func formatCursor(version int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.FormatInt(version, 10)))
}

func parseCursor(s string) (version int64, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, ErrCursor
	}
	digits, ok := strings.CutPrefix(string(b), cursorPrefix)
	version, err = strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || version < 1 || formatCursor(version) != s {
		return 0, ErrCursor
	}
	return version, nil
}
