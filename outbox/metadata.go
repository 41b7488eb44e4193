package outbox

import (
	"context"
)

// Metadata says in which request, and after what, an event happened. Write and
// Queue take it from their context, so that it is set in one place, where a
// request or a record comes in, and not at each event. Empty fields are not
// written.
type Metadata struct {
	UserID        string // who causes the events
	RequestID     string
	CorrelationID string // shared by all that one cause leads to
	CausationID   string // id of the event or command that leads to these
	Traceparent   string // W3C Trace Context
	Tracestate    string
}

type metadataKey struct{}

// WithMetadata gives a context whose metadata is m, and what ctx carries where
// m is empty.
func WithMetadata(ctx context.Context, m Metadata) context.Context {
	have := MetadataFrom(ctx)
	fields, old := m.fields(), have.fields()
	for i, f := range fields {
		if *f.value == "" {
			*f.value = *old[i].value
		}
	}
	return context.WithValue(ctx, metadataKey{}, &m)
}

// MetadataFrom gives the metadata that ctx carries, or none.
func MetadataFrom(ctx context.Context) Metadata {
	if m := carried(ctx); m != nil {
		return *m
	}
	return Metadata{}
}

// carried gives the metadata in ctx, to be read only, or nil.
func carried(ctx context.Context) *Metadata {
	m, _ := ctx.Value(metadataKey{}).(*Metadata)
	return m
}

// A field is one of Metadata, with the header that carries it.
type field struct {
	name  string
	value *string
}

func (m *Metadata) fields() [6]field {
	return [...]field{
		{HeaderUserID, &m.UserID},
		{HeaderRequestID, &m.RequestID},
		{HeaderCorrelationID, &m.CorrelationID},
		{HeaderCausationID, &m.CausationID},
		{HeaderTraceparent, &m.Traceparent},
		{HeaderTracestate, &m.Tracestate},
	}
}
