# Every target says what it does: make help.
SHELL := /bin/sh
.DEFAULT_GOAL := help

.PHONY: help setup build gen gen-check lint test race fuzz bench check vuln clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

setup: ## install what the tests need and is missing (Postgres)
	@scripts/setup-postgres

build: ## compile every package
	go build ./...

gen: ## generate code and the OpenAPI file from proto/
	cd proto && go tool -modfile=../scripts/tools.mod buf format -w && go tool -modfile=../scripts/tools.mod buf generate

gen-check: ## fail when generated code is not fresh
	@scripts/gen-check

lint: ## format, vet, proto lint
	@out=$$(gofmt -l . | grep -v '^\.build/'); test -z "$$out" || { echo "not gofmt'ed: $$out" >&2; exit 1; }
	go vet ./...
	cd proto && go tool -modfile=../scripts/tools.mod buf lint

test: setup ## unit, property and integration tests on a real Postgres and S3
	go test -count=1 -timeout 15m ./...

race: setup ## the same under the race detector, where it matters most
	go test -count=1 -race -timeout 20m ./audit ./registry ./lineage ./internal/...

fuzz: ## each fuzz target for ten seconds
	@scripts/fuzz 10s

bench: setup ## a short run of every benchmark
	go test -run '^$$' -bench . -benchtime 200ms ./audit ./score

check: lint gen-check test bench ## everything that CI runs

vuln: ## known vulnerabilities in what the code calls (needs the vulnerability database)
	go tool -modfile=scripts/tools.mod govulncheck ./...

clean: ## remove what make built
	rm -rf .build bin
