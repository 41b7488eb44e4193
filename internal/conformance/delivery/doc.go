// Package delivery holds the tests of how often the relay publishes a record,
// with relays that are killed, stopped, frozen and cut off.
package delivery
