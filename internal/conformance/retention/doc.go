// Package retention holds the tests of outbox/retention, and of the partitions
// beneath it, on real servers: PostgreSQL, Kafka and the relay.
package retention
