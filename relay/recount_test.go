package relay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/relay"
)

// TestATransactionReadInAnotherWayIsAGap stops inside a transaction of messages
// and rows, and goes on without the messages. The records would be counted in
// another way, and as many rows passed over as messages were published; the
// relay stops instead, and goes on once it reads as before.
func TestATransactionReadInAnotherWayIsAGap(t *testing.T) {
	for _, delivery := range []relay.Delivery{relay.AtLeastOnce, relay.ExactlyOnce} {
		t.Run(string(delivery), func(t *testing.T) {
			f := newFixture(t)
			f.config.TopicPartitions = 1
			f.config.MaxBufferBytes = 1 << 20
			f.config.Delivery = delivery
			f.config.TransactionRecords = 50
			if err := f.start(t)(); err != nil { // makes the slot
				t.Fatal(err)
			}
			next, made := f.numbered()
			large := func() outbox.Event {
				e := next()
				e.Payload = fmt.Appendf(nil, `{"note":%q}`, strings.Repeat("x", 10_000))
				return e
			}
			f.transaction(t, func(s script) {
				for range 250 {
					s.wal(large())
				}
				for range 250 {
					s.row(large())
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			config := f.config
			config.Kafka = []kgo.Opt{kgo.WithHooks(&stopper{f.topic, 100, cancel})}
			r, err := relay.New(config)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Run(ctx); err != nil {
				t.Fatal(err)
			}

			f.config.Messages = relay.IgnoreMessages
			gap, ok := errors.AsType[*relay.GapError](f.fails(t))
			if !ok || !strings.Contains(gap.Error(), "--messages") {
				t.Fatalf("Run: %v, want a GapError that names what has changed", gap)
			}
			f.config.Messages = relay.ReadMessages
			stop := f.start(t)
			f.write(t, next())
			for i, e := range f.read(t, len(*made)) {
				if e.Sequence != int64(i+1) || e.AggregateVersion != int64(i+1) {
					t.Fatalf("record %d has sequence %d and version %d", i, e.Sequence, e.AggregateVersion)
				}
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
