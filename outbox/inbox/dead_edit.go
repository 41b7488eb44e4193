package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox/cloudevent"
)

// An Edit changes a letter. What identifies the event and puts it in its place
// can't be changed: its id, its time, its aggregate.
type Edit struct {
	// Payload, where it is not nil, takes the payload's place. To make it
	// empty give an empty slice.
	Payload []byte

	// SetHeaders change the value of the first header of that name each, or
	// are added behind the others.
	SetHeaders []kgo.RecordHeader

	// RemoveHeaders are the names of headers to be taken away.
	RemoveHeaders []string
}

// fixed headers are what the letter's place and identity were taken from.
func fixed(name string) bool {
	switch name {
	case cloudevent.HeaderID, cloudevent.HeaderTime, cloudevent.HeaderSubject, cloudevent.HeaderAggregateType:
		return true
	}
	return false
}

func (e *Edit) check() error {
	if e.Payload == nil && len(e.SetHeaders) == 0 && len(e.RemoveHeaders) == 0 {
		return errors.New("the edit changes nothing: give a payload, or headers to set or remove")
	}
	var problems []error
	for _, name := range e.names() {
		switch {
		case name == "":
			problems = append(problems, errors.New("a header to change has no name"))
		case strings.ContainsRune(name, 0) || !utf8.ValidString(name):
			problems = append(problems, fmt.Errorf("header %q: a name is UTF-8 without NUL", name))
		}
	}
	return errors.Join(problems...)
}

// keepsIdentity refuses other values for what the letter was filed under. A
// record that is no event was filed under its place in Kafka, and may be mended.
func (e *Edit) keepsIdentity(l *Letter) error {
	if _, err := cloudevent.Decode(&kgo.Record{Topic: l.Topic, Headers: l.Headers, Value: l.Payload}); err != nil {
		return nil //nolint:nilerr // the edit may be what makes it an event
	}
	var problems []error
	for _, name := range e.names() {
		if fixed(name) {
			problems = append(problems, fmt.Errorf("header %s identifies the event or gives it its place, and can't be changed: drop the letter and write a new event instead", name))
		}
	}
	return errors.Join(problems...)
}

func (e *Edit) names() []string {
	names := slices.Clone(e.RemoveHeaders)
	for _, h := range e.SetHeaders {
		names = append(names, h.Key)
	}
	return names
}

// headers gives those of the letter as the edit makes them.
func (e *Edit) headers(old []kgo.RecordHeader) (names []string, values [][]byte) {
	headers := slices.DeleteFunc(slices.Clone(old), func(h kgo.RecordHeader) bool { return slices.Contains(e.RemoveHeaders, h.Key) })
	for _, set := range e.SetHeaders {
		if i := slices.IndexFunc(headers, func(h kgo.RecordHeader) bool { return h.Key == set.Key }); i >= 0 {
			headers[i].Value = set.Value
		} else {
			headers = append(headers, set)
		}
	}
	return split(headers)
}

// split gives headers as the columns header_names and header_values.
func split(headers []kgo.RecordHeader) (names []string, values [][]byte) {
	names, values = make([]string, len(headers)), make([][]byte, len(headers))
	for i, h := range headers {
		names[i], values[i] = h.Key, h.Value
	}
	return names, values
}

// Edit changes the payload or headers of a letter and gives the letter as it
// then is. The payload that came from Kafka is kept in OriginalPayload,
// however often the letter is edited; headers are not kept. The letter stays
// where it is: redrive it to have it handled.
//
// A letter that is being redriven gives [ErrRedriven], and one that is not
// there [ErrNoLetter].
func (d DeadLetters) Edit(ctx context.Context, id int64, edit Edit) (Letter, error) {
	if err := edit.check(); err != nil {
		return Letter{}, fmt.Errorf("edit dead letter %d: %w", id, err)
	}
	var edited Letter
	err := pgx.BeginFunc(ctx, d.DB, func(tx pgx.Tx) error {
		// A handler at work holds the row: that one is not waited for.
		old, err := get(ctx, tx, id)
		if err == nil && old.RedriveAt.IsZero() {
			// Locked, so that a redrive that begins now reads the row as edited.
			if _, err = tx.Exec(ctx, "select from inbox_dead where id = $1 for update", id); err == nil {
				old, err = get(ctx, tx, id)
			}
		}
		switch {
		case err != nil:
			return err
		case !old.RedriveAt.IsZero():
			return ErrRedriven
		}
		if err := edit.keepsIdentity(&old); err != nil {
			return err
		}
		names, values := edit.headers(old.Headers)
		typ := old.Type
		if i := slices.Index(names, cloudevent.HeaderType); i >= 0 {
			typ = string(values[i])
		}
		_, err = tx.Exec(ctx, `update inbox_dead set header_names = $2, header_values = $3, type = $4,`+
			` original_payload = case when edited_at is null then payload else original_payload end,`+
			` payload = case when $5::boolean then $6::bytea else payload end, edited_at = now() where id = $1`,
			id, names, values, typ, edit.Payload != nil, edit.Payload)
		if err != nil {
			return err
		}
		edited, err = get(ctx, tx, id)
		return err
	})
	if err != nil {
		return Letter{}, fmt.Errorf("edit dead letter %d: %w", id, err)
	}
	return edited, nil
}
