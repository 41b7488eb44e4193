// Package deadletters holds the promises of the inbox's dead letters, of the
// command inbox and of the inbox's window on a real PostgreSQL and Kafka.
package deadletters
