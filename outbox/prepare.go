package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox/envelope"
)

// prepared is an event that has been checked, with all it is written with.
type prepared struct {
	*Event
	id      ID
	headers []envelope.Header
}

// payload is never nil, which would be NULL in the table.
func (p *prepared) payload() []byte {
	if p.Payload == nil {
		return []byte{}
	}
	return p.Payload
}

func (p *prepared) headersText() string {
	if len(p.headers) == 0 {
		return ""
	}
	return string(appendJSON(make([]byte, 0, 256), p.headers))
}

// prepare checks events and gives each its id and headers. It finds every
// problem of all events, so that the caller mends them at once.
func (w *Writer) prepare(ctx context.Context, events []Event) (list []prepared, size int, err error) {
	problems := w.check()
	metadata := carried(ctx)
	list = make([]prepared, len(events))
	bare := metadata == nil && len(w.Hooks) == 0
	var headers []envelope.Header // of all events, one behind the other
	var last ID
	for i := range events {
		e := &events[i]
		p := &list[i]
		p.Event, p.id = e, e.ID
		if !bare || len(e.Headers) > 0 {
			if room := len(e.Headers) + 8; cap(headers)-len(headers) < room {
				headers = make([]envelope.Header, 0, room*min(len(events)-i, 16))
			}
			first := len(headers)
			headers = w.merge(ctx, headers, e, metadata)
			p.headers = headers[first:len(headers):len(headers)]
		}
		if p.id.IsZero() {
			p.id = newID(time.Now(), last)
			last = p.id
		}
		size += e.size(p.headers)
		e.check(p.headers, w.maxBytes(e.Topic), func(field, value, hint string) {
			if len(value) > 64 {
				value = value[:64] + "…"
			}
			problems = append(problems, &EventError{Index: i, Field: field, Value: value, Hint: hint})
		})
	}
	if len(problems) > 0 {
		return nil, size, fmt.Errorf("write to the outbox: %w", errors.Join(problems...))
	}
	return list, size, nil
}

func (w *Writer) maxBytes(topic string) int {
	if n, ok := w.TopicMaxBytes[topic]; ok {
		return n
	}
	if w.MaxBytes > 0 {
		return w.MaxBytes
	}
	return DefaultMaxBytes
}

// check finds what is wrong with the Writer itself.
func (w *Writer) check() (problems []error) {
	if w.Mode > WAL {
		problems = append(problems, fmt.Errorf("Writer.Mode %d: use Rows, Packed or WAL", w.Mode))
	}
	if w.MaxBytes < 0 {
		problems = append(problems, fmt.Errorf("Writer.MaxBytes %d: give the largest size of an event in bytes, or 0 for %d", w.MaxBytes, DefaultMaxBytes))
	}
	for i, hook := range w.Hooks {
		_, headers := hook.(HookHeaders)
		_, write := hook.(HookWrite)
		if !headers && !write {
			problems = append(problems, fmt.Errorf("Writer.Hooks[%d] %T: implement HookHeaders or HookWrite", i, hook))
		}
	}
	return problems
}

func (w *Writer) identifier() pgx.Identifier {
	if len(w.Table) == 0 {
		return pgx.Identifier{"outbox"}
	}
	return w.Table
}

func (w *Writer) prefix() string {
	if w.Prefix == "" {
		return DefaultPrefix
	}
	return w.Prefix
}
