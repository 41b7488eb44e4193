// Package architecture holds the test of the import directions.
package architecture
