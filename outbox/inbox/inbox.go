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
