package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/seed-048de892/walpost/outbox/inbox"
)

// A letter is an inbox.Letter as JSON. Bytes that are no UTF-8 come in base64,
// in a field of their own.
type letter struct {
	ID        int64     `json:"id"`
	Group     string    `json:"group"`
	Key       string    `json:"key"`
	State     string    `json:"state"`
	EventID   string    `json:"eventId"`
	EventTime time.Time `json:"eventTime"`
	Type      string    `json:"type"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Error     string    `json:"error,omitempty"`
	Attempts  int       `json:"attempts"`
	FailedAt  time.Time `json:"failedAt"`
	RedriveAt time.Time `json:"redriveAt,omitzero"`
	EditedAt  time.Time `json:"editedAt,omitzero"`
	Behind    int       `json:"behind"`

	RecordKey       *string `json:"recordKey,omitempty"`
	RecordKeyBase64 *string `json:"recordKeyBase64,omitempty"`
	PayloadBytes    int     `json:"payloadBytes"`
	contents
}

// contents are what a list leaves out.
type contents struct {
	Headers               []header `json:"headers,omitempty"`
	Payload               *string  `json:"payload,omitempty"`
	PayloadBase64         *string  `json:"payloadBase64,omitempty"`
	OriginalPayload       *string  `json:"originalPayload,omitempty"`
	OriginalPayloadBase64 *string  `json:"originalPayloadBase64,omitempty"`
}

type header struct {
	Name        string  `json:"name"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"valueBase64,omitempty"`
}

func brief(l *inbox.Letter) letter {
	v := letter{
		ID: l.ID, Group: l.Group, Key: l.OrderingKey, State: l.State, EventID: l.EventID, EventTime: l.EventTime.UTC(), Type: l.Type,
		Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Error: l.Error, Attempts: l.Attempts, FailedAt: l.FailedAt.UTC(),
		RedriveAt: utc(l.RedriveAt), EditedAt: utc(l.EditedAt), Behind: l.Behind, PayloadBytes: l.PayloadBytes,
	}
	v.RecordKey, v.RecordKeyBase64 = text(l.Key)
	return v
}

func briefs(letters []inbox.Letter) []letter {
	list := make([]letter, len(letters))
	for i := range letters {
		list[i] = brief(&letters[i])
	}
	return list
}

func full(l *inbox.Letter) letter {
	v := brief(l)
	for _, h := range l.Headers {
		value, base := text(h.Value)
		v.Headers = append(v.Headers, header{h.Key, value, base})
	}
	v.Payload, v.PayloadBase64 = text(l.Payload)
	v.OriginalPayload, v.OriginalPayloadBase64 = text(l.OriginalPayload)
	return v
}

// text gives b as a string, or in base64 where it is none. Both are nil where
// b is: a record without a payload is not one with an empty payload.
func text(b []byte) (s, base *string) {
	switch {
	case b == nil:
	case utf8.Valid(b):
		s = new(string(b))
	default:
		base = new(base64.StdEncoding.EncodeToString(b))
	}
	return s, base
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A table lists letters on a terminal.
type table struct {
	w      *tabwriter.Writer
	listed int
}

func newTable(w io.Writer) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.w, "ID\tSTATE\tGROUP\tKEY\tTYPE\tFAILED\tATTEMPTS\tBEHIND\tREDRIVE\tERROR") // an error comes again with Flush
	return t
}

func (t *table) add(l *inbox.Letter) {
	redrive := "-"
	if !l.RedriveAt.IsZero() {
		redrive = l.RedriveAt.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(t.w, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", l.ID, l.State, oneLine(l.Group), oneLine(l.OrderingKey), oneLine(l.Type),
		l.FailedAt.UTC().Format(time.RFC3339), l.Attempts, l.Behind, redrive, short(l.Error))
	t.listed++
}

// oneLine keeps what came from elsewhere from moving the cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func short(s string) string {
	const width = 80
	s = oneLine(s)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
