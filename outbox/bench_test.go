package outbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-048de892/walpost/outbox"
)

// nowhere is a transaction that takes statements and sends nothing, so that
// only our own share is measured; bench compares whole transactions.
type nowhere struct{ pgx.Tx }

func (nowhere) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, nil
}

func BenchmarkWrite(b *testing.B) {
	events := make([]outbox.Event, 100)
	for i := range events {
		events[i] = valid()
		events[i].Payload = make([]byte, 400)
	}
	plain := valid()
	plain.Payload, plain.Headers = make([]byte, 400), nil
	tests := []struct {
		name   string
		ctx    context.Context
		writer outbox.Writer
		events []outbox.Event
	}{
		{"one", b.Context(), outbox.Writer{}, []outbox.Event{plain}},
		{"one-headers", b.Context(), outbox.Writer{}, events[:1]},
		{"one-metadata", outbox.WithMetadata(b.Context(), outbox.Metadata{UserID: "u", RequestID: "r", CorrelationID: "c"}), outbox.Writer{}, []outbox.Event{plain}},
		{"rows-100", b.Context(), outbox.Writer{}, events},
		{"packed-100", b.Context(), outbox.Writer{Mode: outbox.Packed}, events},
		{"wal-1", b.Context(), outbox.Writer{Mode: outbox.WAL}, events[:1]},
		{"wal-100", b.Context(), outbox.Writer{Mode: outbox.WAL}, events},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := tt.writer.Write(tt.ctx, nowhere{}, tt.events...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
