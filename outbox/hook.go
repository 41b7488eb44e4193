package outbox

import (
	"context"
	"time"
)

// A Hook is called by a [Writer] at work: it implements one or more of the
// interfaces whose names begin with Hook, and a Writer refuses one that
// implements none. Hooks are called in the order given, from the goroutine
// that writes, and must be safe for use by several.
type Hook any

// HookHeaders adds headers to events, as a tracer does.
type HookHeaders interface {
	// OnHeaders is called for each event before it is checked. A header set
	// here wins over the context's [Metadata] and over earlier hooks; one that
	// the event has set itself wins over all. The event must not be changed.
	OnHeaders(ctx context.Context, e *Event, set func(name, value string))
}

// HookWrite sees every call of a Writer, as a metric does.
type HookWrite interface {
	// OnWrite is called at the end of the call, also of one that failed.
	OnWrite(ctx context.Context, w WriteInfo)
}

// A WriteInfo tells what one call of a [Writer] did.
type WriteInfo struct {
	Mode     Mode
	Events   int
	Bytes    int           // payloads, names and headers together
	Duration time.Duration // of the call, PostgreSQL's time included
	Queued   bool          // the events are in a batch or a statement that the caller sends
	Err      error
}
