// Package inbox holds the promises of outbox/inbox that only a real PostgreSQL
// and a real Kafka can keep: each event's effect once and in the order of its
// key, whatever is delivered again, moves, fails or is killed.
package inbox
