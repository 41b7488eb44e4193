// Package aggregate holds the promises of outbox/aggregate that only a real
// PostgreSQL can keep: who saves one version first wins, and a version that
// was not saved has no event.
package aggregate
