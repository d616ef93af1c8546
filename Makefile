# Everything that is done to this repository by command. `make` alone lists it.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
BIN       ?= bin
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X github.com/fetchfleet/fetchfleet/internal/cli.version=$(VERSION)
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
# Two packages at a time: tests start Redis servers and origins of their own, and share two cores in CI.
TESTFLAGS ?= -race -p 2 -timeout 12m
PKG       ?= ./...
FUZZTIME  ?= 3s
TOOLS     := .tools
VERSITYGW := v1.8.0
WARCIO    := 2.4.11

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build the three commands into bin/
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/worker ./cmd/enqueue ./cmd/fleet

.PHONY: demo
demo: ## fetch a small site that the program serves itself: no network, no Redis
	$(GO) run ./cmd/fleet demo

.PHONY: test
test: deps ## run every test with the race detector, after installing what they need
	$(GO) test $(TESTFLAGS) $(PKG)

.PHONY: deps
deps: packages $(TOOLS)/bin/versitygw $(TOOLS)/node_modules/warcio ## install what the tests need and is missing: servers from Debian's packages, jq, a C compiler (Debian), versitygw, warcio

.PHONY: packages
packages:
	@missing=(); \
	command -v redis-server >/dev/null || missing+=(redis-server); \
	command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql); \
	command -v npm >/dev/null || missing+=(nodejs npm); \
	command -v jq >/dev/null || missing+=(jq); \
	command -v tinyproxy >/dev/null || missing+=(tinyproxy-bin); \
	command -v microsocks >/dev/null || missing+=(microsocks); \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light); \
	command -v gcc >/dev/null || command -v cc >/dev/null || missing+=(gcc libc6-dev); \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	command -v apt-get >/dev/null || { echo "install these yourself, there is no apt-get here: $${missing[*]}" >&2; exit 1; }; \
	root=(); [ "$$(id -u)" = 0 ] || root=(sudo); \
	if [ $${#root[@]} -gt 0 ] && ! command -v sudo >/dev/null; then \
		echo "install these as root: $${missing[*]}" >&2; exit 1; \
	fi; \
	echo "installing $${missing[*]}"; \
	"$${root[@]}" apt-get update -qq; \
	"$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null

# The S3 server and the independent WARC reader that tests run against, at the versions they are written for.
$(TOOLS)/bin/versitygw:
	GOBIN=$(CURDIR)/$(TOOLS)/bin GOFLAGS= $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)

$(TOOLS)/node_modules/warcio: | packages
	npm install --prefix $(TOOLS) --no-save --no-package-lock --no-audit --no-fund --silent warcio@$(WARCIO)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (3s)
	@grep -rlE --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$file"); do \
			echo "$$(dirname "$$file") $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
		done; \
	done

.PHONY: test-compose
test-compose: ## try docker-compose.yml on a real Docker Engine; without one, on one made of Debian's packages (root)
	@if docker info >/dev/null 2>&1; then engine=(); else engine=(test/compose/engine.sh); fi; \
	if docker compose version >/dev/null 2>&1; then : "$${FLEET_COMPOSE:=docker compose}"; else : "$${FLEET_COMPOSE:=docker-compose}"; fi; \
	export FLEET_COMPOSE; \
	"$${engine[@]}" $(GO) test -tags compose -count=1 -timeout 12m ./test/compose

.PHONY: lint
lint: ## vet, formatting and golangci-lint, at the version in tools/go.mod
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { printf 'not formatted, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

.PHONY: fmt
fmt: ## format the code
	gofmt -w .

.PHONY: cross
cross: ## compile everything, tests included, for linux, darwin and windows on amd64 and arm64
	@for platform in $(PLATFORMS); do \
		echo "build and vet $$platform"; \
		export CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		$(GO) build ./...; \
		$(GO) vet ./...; \
	done

# What fetchfleet is measured beside, as Debian has it.
.PHONY: peers
peers:
	@/usr/bin/python3 -c 'import aiohttp, httpx' 2>/dev/null && exit 0; \
	root=(); [ "$$(id -u)" = 0 ] || root=(sudo); \
	"$${root[@]}" apt-get install -y -qq --no-install-recommends python3-aiohttp python3-httpx >/dev/null

.PHONY: bench
bench: deps peers ## measure what is promised, each figure beside its ceiling from the same run
	$(GO) run ./test/bench

.PHONY: microbench
microbench: ## run the benchmarks of single packages
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m $(PKG)

.PHONY: soak
soak: deps ## run the long tests: kills, restarts and pauses under load
	FLEET_SOAK=1 $(GO) test -race -run Soak -count=1 -v -timeout 60m $(PKG)

.PHONY: cover
cover: deps ## measure coverage, across packages, into coverage.html
	$(GO) test -coverpkg=./... -coverprofile=coverage.out -timeout 20m $(PKG)
	$(GO) tool cover -html=coverage.out -o coverage.html
	$(GO) tool cover -func=coverage.out | tail -n 1

.PHONY: demo-compose
demo-compose: ## the demo on a fleet of four workers in containers; stop it with Ctrl-C
	FLEET_ALLOW_PRIVATE=172.16.0.0/12,192.168.0.0/16 docker compose --profile demo up --build --scale worker=4

.PHONY: clean
clean: ## remove what these targets have made
	rm -rf $(BIN) coverage.out coverage.html
