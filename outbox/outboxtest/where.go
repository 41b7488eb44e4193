package outboxtest

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/seed-048de892/walpost/outbox"
)

// A Where narrows which events are looked for.
type Where func(*search)

type search struct {
	table      pgx.Identifier
	conditions []condition
}

type condition struct {
	text string
	fits func(*outbox.Event) bool
}

func (s *search) fits(e *outbox.Event) bool {
	for _, c := range s.conditions {
		if !c.fits(e) {
			return false
		}
	}
	return true
}

func (s *search) text() string {
	if len(s.conditions) == 0 {
		return ""
	}
	texts := make([]string, len(s.conditions))
	for i, c := range s.conditions {
		texts[i] = c.text
	}
	return " with " + strings.Join(texts, " and ")
}

func where(text string, fits func(*outbox.Event) bool) Where {
	return func(s *search) { s.conditions = append(s.conditions, condition{text, fits}) }
}

// AggregateID looks for events of that aggregate.
func AggregateID(id string) Where {
	return where(fmt.Sprintf("aggregate id %q", id), func(e *outbox.Event) bool { return e.AggregateID == id })
}

// AggregateVersion looks for the events that made that version.
func AggregateVersion(version int64) Where {
	return where(fmt.Sprintf("aggregate version %d", version), func(e *outbox.Event) bool { return e.AggregateVersion == version })
}

// Topic looks for events to that topic.
func Topic(topic string) Where {
	return where(fmt.Sprintf("topic %q", topic), func(e *outbox.Event) bool { return e.Topic == topic })
}

// Header looks for events with that header.
func Header(name, value string) Where {
	return where(fmt.Sprintf("header %s %q", name, value), func(e *outbox.Event) bool {
		got, ok := e.Headers[name]
		return ok && got == value
	})
}

// Table says which outbox table to read, where it is not "outbox" as the
// search path finds it.
func Table(table pgx.Identifier) Where {
	return func(s *search) { s.table = table }
}
