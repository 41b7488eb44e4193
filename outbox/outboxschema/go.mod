module github.com/seed-048de892/walpost/outbox/outboxschema

go 1.26.0

replace github.com/seed-048de892/walpost/outbox => ../

require (
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
	github.com/seed-048de892/walpost/outbox v0.0.0
)

require (
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.12.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)
