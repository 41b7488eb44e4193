// Package security tests secure connections on real servers: every way to log
// in to Kafka and to PostgreSQL, what is refused, what never shows in an error
// or a log, and the rights that the operations manual grants.
package security
