// Package schema holds the outbox table as goose migrations, to be applied
// among a service's own.
package schema

import "embed"

// FS holds the migrations, named as goose wants them. Apply them with a goose
// provider, or copy them into the folder of the service's own migrations,
// whose numbers then go on behind them.
//
//go:embed *.sql
var FS embed.FS
