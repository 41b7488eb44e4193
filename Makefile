# Everything a change needs. `make` lists the targets.

# Test packages run two at a time: each drives real servers that all share.
PACKAGES ?= 2
TIMEOUT ?= 15m
FUZZTIME ?= 15s
BENCHTIME ?= 1s

DEVSTACK := go run ./internal/devstack/run --
LINT := $(CURDIR)/bin/golangci-lint

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Start everything on this machine and show events flow.
	go run ./cmd/demo

.PHONY: test
test: check ## Run everything a change must pass, on servers of its own.
	$(DEVSTACK) sh -c '\
		go test -p $(PACKAGES) -timeout $(TIMEOUT) ./... && \
		(cd outbox && go test -p $(PACKAGES) -timeout $(TIMEOUT) ./...) && \
		(cd outbox/outboxotel && go test -timeout $(TIMEOUT) ./...) && \
		(cd outbox/outboxschema && go test -timeout $(TIMEOUT) ./...) && \
		(cd bench && go test -timeout $(TIMEOUT) ./...) && \
		(cd deploy && go test -timeout $(TIMEOUT) ./...)'

# WALPOST_TEST_LONG makes tests do all they can where make test does a part:
# every link of the conformance suite on every PostgreSQL, and every fault of
# internal/faults ten times over, with those that take long.
.PHONY: test-long
test-long: check ## Run all tests in their long form, without their caches, with the race detector.
	WALPOST_TEST_LONG=1 $(DEVSTACK) sh -c '\
		go test -race -count 1 -p $(PACKAGES) -timeout 120m ./... && \
		(cd outbox && go test -race -count 1 -p $(PACKAGES) -timeout 60m ./...)'

.PHONY: check
check: ## Vet, and look for files that gofmt would change.
	go vet ./...
	cd outbox && go vet ./...
	cd outbox/outboxotel && go vet ./...
	cd outbox/outboxschema && go vet ./...
	cd bench && go vet ./...
	cd deploy && go vet ./...
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || \
		{ echo "not formatted, run: gofmt -w" $$unformatted; exit 1; }

.PHONY: lint
lint: $(LINT) ## Lint all modules (the first run builds the linter).
	$(LINT) run
	cd outbox && $(LINT) run --config ../.golangci.yml
	cd outbox/outboxotel && $(LINT) run --config ../../.golangci.yml
	cd outbox/outboxschema && $(LINT) run --config ../../.golangci.yml
	cd bench && $(LINT) run --config ../.golangci.yml

# Kept in bin: linking it anew takes longer than linting does.
$(LINT): tools/go.mod tools/go.sum
	go build -modfile=tools/go.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME.
	@grep -rl '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		dir=$$(dirname "$$file"); \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "$$dir $$target"; \
			(cd "$$dir" && go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .) || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## Run the benchmarks.
	$(DEVSTACK) sh -c '\
		go test -run "^$$" -bench . -benchmem -benchtime $(BENCHTIME) -p 1 ./... && \
		(cd outbox && go test -run "^$$" -bench . -benchmem -benchtime $(BENCHTIME) -p 1 ./...)'
	cd bench && go run ./cmd/write $(WRITEBENCH)

.PHONY: build
build: ## Build all programs into bin.
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

.PHONY: goose
goose: ## Run goose: make goose ARGS='-dir migrations/user postgres "$$DSN" up'
	go tool -modfile=tools/go.mod goose $(ARGS)
