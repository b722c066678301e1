# Every target says what it does: make help.
SHELL := /bin/sh
.DEFAULT_GOAL := help

# What scripts/setup-* could not find on the machine they put under .build; it is used when it is there, also when it
# came there only now: the second line is expanded anew for every recipe.
export PATH := $(CURDIR)/.build/node/bin:$(PATH)
export WAYBILL_POSTGRES_BIN ?= $(shell [ ! -x "$(CURDIR)/.build/postgres/bin/postgres" ] || echo "$(CURDIR)/.build/postgres/bin")

# A Node of its own knows a list of authorities of its own; add the machine's.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export NODE_EXTRA_CA_CERTS ?= /etc/ssl/certs/ca-certificates.crt
endif

web_sources := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print)

.PHONY: help setup postgres node redis setup-python warm build demo gen gen-check lint test race web-test fuzz bench check vuln clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' Makefile

setup: postgres node ## find or install Postgres and Node

postgres:
	@scripts/setup-postgres

node:
	@scripts/setup-node

redis:
	@scripts/setup-redis

# Each stock client and each peer in an environment of its own, from pinned files; a test that finds none fails and says so.
pythons ?= feast-0.66 feast-0.50 pyarrow duckdb

setup-python: ## find or make the Python environments of the stock clients that tests run
	@scripts/setup-python $(pythons)

web/node_modules/.package-lock.json: web/package.json web/package-lock.json | node
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(web_sources)
	cd web && npm run --silent build -- --logLevel warn

# Compiles all that does not hold the pages, while the others wait for the network. The compiler collects garbage less
# often than it would: memory for time.
compile := CGO_ENABLED=0 GOGC=400 go build -trimpath

warm:
	@$(compile) $$(go list ./... | grep -v -e '/web$$' -e '/cmd/')

build: ## the pages, then the one binary, into bin/waybill; installs what is missing for both and for running it
	@$(MAKE) --no-print-directory -j3 postgres web/dist/index.html warm
	$(compile) -o bin/waybill ./cmd/waybill

demo: build ## set everything up and tell the whole story on a hub of its own
	@bin/waybill demo

gen: ## generate code and the OpenAPI file from proto/, and the types of the pages from that
	cd proto && go tool -modfile=../scripts/tools.mod buf format -w && go tool -modfile=../scripts/tools.mod buf generate && go tool -modfile=../scripts/tools.mod buf generate --template buf.gen.feast.yaml
	cd web && npm run --silent gen

gen-check: setup web/node_modules/.package-lock.json ## fail when generated code is not fresh
	@scripts/gen-check
	cd web && npm run --silent gen:check

.build/bin/golangci-lint: scripts/lint.mod
	go build -modfile=scripts/lint.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

lint: setup web/node_modules/.package-lock.json .build/bin/golangci-lint ## format, linters, proto, pages, licences, deployment files
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt'ed: $$out" >&2; exit 1; }
	.build/bin/golangci-lint run --allow-parallel-runners ./...
	cd scripts/deploylint && go vet . && go run . ../../deploy/Dockerfile ../../deploy/compose.yaml
	cd scripts/licences && go vet . && go run . ../..
	cd proto && go tool -modfile=../scripts/tools.mod buf lint
	cd web && npm run --silent lint

test: build redis setup-python ## unit, property and integration tests on a real Postgres and S3, then the pages in a browser
	go test -count=1 -timeout 15m ./...
	@$(MAKE) --no-print-directory web-test

web-test: web/node_modules/.package-lock.json ## the pages: unit tests, weight, and the real binary in a browser
	@scripts/setup-browser
	cd web && npm test --silent && npm run --silent size && npm run --silent e2e

race: setup redis setup-python ## the Go tests under the race detector, where it matters most
	go test -count=1 -race -timeout 20m ./audit ./registry ./lineage ./decision ./drift ./internal/...
	go test -count=1 -race -timeout 20m -run 'TestOnline' ./featurestore

fuzz: ## each fuzz target for ten seconds
	@scripts/fuzz 10s

bench: build ## first figures beside their physical limits, from one run
	bin/waybill bench --quick
	go test -run '^$$' -bench . -benchtime 200ms ./audit ./score ./drift

check: lint gen-check vuln test race bench ## everything that CI runs

vuln: ## known vulnerabilities in what the code calls; says so where their database cannot be reached
	@scripts/vuln

clean: ## remove what make built
	rm -rf .build bin web/dist/assets web/dist/index.html web/dist/icon.svg web/dist/.vite
