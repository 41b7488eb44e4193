// Package faults tests what the relay promises while processes, servers and
// connections fail beneath it, on a real PostgreSQL and Apache Kafka.
package faults
