// Package write holds the suite of promises that every way to write an event
// keeps, on every supported PostgreSQL, directly and behind a pooler, up to
// the record that the relay publishes.
package write
