package faults

// kafkaFaults happen to the broker.
func kafkaFaults() []fault {
	return []fault{
		{name: "broker killed", again: anyNumber, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.must(w.servers.kafka.Kill())
			w.load.burst(100)
			w.startKafka(w.t)
		}},
		{name: "broker stands still", do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.must(w.servers.kafka.Pause())
			w.written(300)
			w.must(w.servers.kafka.Resume())
		}},
	}
}
