// Package inbox consumes events from Kafka and has each handled once: what the
// handler does in PostgreSQL and the mark that the event was handled are one
// transaction, so that a redelivery, whoever causes it, is recognised.
//
//	in, err := inbox.New(inbox.Config{Brokers: brokers, Group: "mailer", Pool: pool})
//	…
//	err = inbox.Handle(in, userCreated, func(ctx context.Context, tx pgx.Tx, e inbox.Received[UserCreated]) error {
//		_, err := tx.Exec(ctx, `insert into welcome (email) values ($1)`, e.Value.Email)
//		return err
//	})
//	…
//	err = in.Run(ctx)
//
// Events of one ordering key are handled in order, those of different keys at
// once. One that fails is tried again, and then becomes a dead letter, behind
// which the later ones of its key wait: see [DeadLetters]. The tables are made
// by the goose migrations in package schema.
package inbox

import (
	"fmt"
	"sync/atomic"
)

// An Inbox consumes events of Kafka topics and has each handled once: see
// [Handle]. Make one with [New].
type Inbox struct {
	cfg      Config
	handlers map[string]handler // by event type
	topics   []string           // of the handled types
	tell     teller
	consumer atomic.Pointer[consumer] // of the Run at work, or the last one
	running  atomic.Bool
}

// New makes an Inbox. It connects to nothing: [Inbox.Run] does. The error
// names every problem of cfg together.
func New(cfg Config) (*Inbox, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	in := &Inbox{cfg: cfg, handlers: make(map[string]handler)}
	in.tell.use(cfg.Hooks)
	return in, nil
}
