package faults

import "syscall"

// relayFaults happen to the relay.
func relayFaults() []fault {
	return []fault{
		{name: "relay killed", again: anyNumber, do: func(w *world) {
			for range 5 {
				w.load.burst(100)
				w.flow(50)
				w.relay.Kill()
				w.relay.Start()
			}
		}},
		{name: "relay killed as it starts", again: anyNumber, do: func(w *world) {
			for range 5 {
				w.relay.Kill()
				w.relay.Start()
				w.written(50)
			}
		}},
		// The transaction being published at the stop is begun again.
		{name: "relay stopped cleanly", again: 3, do: func(w *world) {
			for range 3 {
				w.load.burst(100)
				w.flow(50)
				if state := w.relay.End(syscall.SIGTERM); !state.Success() {
					w.t.Errorf("the relay ended with %v", state)
				}
				w.relay.Start()
			}
		}},
		// Longer than PostgreSQL waits for it: it wakes up without a slot.
		{name: "relay stands still", again: anyNumber, hasty: true, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.relay.Signal(syscall.SIGSTOP)
			w.slotFree()
			w.relay.Signal(syscall.SIGCONT)
		}},
	}
}
