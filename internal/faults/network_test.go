package faults

import (
	"github.com/seed-048de892/walpost/internal/devstack"
)

// networkFaults happen between the relay and its servers.
func networkFaults() []fault {
	return []fault{
		{name: "connection to PostgreSQL cut", again: anyNumber, do: func(w *world) {
			for range 3 {
				cut := w.pgNetwork.CutAfter(devstack.ToClient, 30_000)
				w.load.burst(100)
				w.await("the cut", cut)
				w.flow(50)
			}
		}},
		{name: "PostgreSQL in a blackhole", again: anyNumber, hasty: true, do: func(w *world) { blackhole(w, w.pgNetwork, devstack.BothWays, w.slotFree) }},
		{name: "PostgreSQL hears nothing", again: anyNumber, hasty: true, do: func(w *world) { blackhole(w, w.pgNetwork, devstack.ToServer, w.slotFree) }},
		{name: "PostgreSQL out of reach", again: anyNumber, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.pgNetwork.Refuse()
			w.pgNetwork.Cut()
			w.written(300)
			w.pgNetwork.Heal()
		}},
		{name: "connection to Kafka cut", do: func(w *world) {
			for range 3 {
				cut := w.kafkaNetwork.CutAfter(devstack.ToServer, 50_000)
				w.load.burst(100)
				w.await("the cut", cut)
				w.flow(50)
			}
		}},
		{name: "acknowledgements of Kafka cut", do: func(w *world) {
			for range 5 {
				cut := w.kafkaNetwork.CutAfter(devstack.ToClient, 1)
				w.load.burst(20)
				w.await("the cut", cut)
				w.flow(20)
			}
		}},
		{name: "Kafka in a blackhole", do: func(w *world) {
			blackhole(w, w.kafkaNetwork, devstack.BothWays, func() { w.written(500) })
		}},
		{name: "Kafka out of reach", do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.kafkaNetwork.Refuse()
			w.kafkaNetwork.Cut()
			w.written(300)
			w.kafkaNetwork.Heal()
		}},
		// Nobody tells either end: they find out by their own clocks.
		{name: "connection to PostgreSQL stranded", again: anyNumber, hasty: true, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.pgNetwork.Strand()
			w.slotFree()
		}},
		{name: "connection to Kafka stranded", long: true, do: func(w *world) {
			w.load.burst(100)
			w.flow(50)
			w.kafkaNetwork.Strand()
			w.written(300)
		}},
		{name: "slow network", do: func(w *world) {
			w.pgNetwork.Throttle(200_000)
			w.kafkaNetwork.Delay(20_000_000)
			w.load.burst(50)
			w.flow(100)
			w.pgNetwork.Heal()
			w.kafkaNetwork.Heal()
		}},
	}
}

// blackhole makes a network one until something has happened.
func blackhole(w *world, network *devstack.Proxy, way devstack.Direction, until func()) {
	w.load.burst(100)
	w.flow(50)
	network.Blackhole(way)
	w.load.burst(100)
	until()
	network.Heal()
}
