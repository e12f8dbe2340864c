# Counterfoil: what a person or a machine does with this repository.
# `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Same source, same Go: same bytes. No path of this machine, no build id.
BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	-ldflags '-s -w -buildid= -X main.version=$(VERSION)'

# Arguments for go test: make test TESTFLAGS='-run TestStory -v' PACKAGES=./internal/gateway/
PACKAGES ?= ./...
TESTFLAGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binary, bin/counterfoil
	@echo '==> Building bin/counterfoil $(VERSION)'
	@mkdir -p bin
	@$(BUILD) -o bin/counterfoil ./cmd/counterfoil

.PHONY: demo
demo: build ## build it and run the whole story on loopback
	@bin/counterfoil demo

.PHONY: deps
deps: ## get what the tests need (compiler, modules, Node, peers)
	@scripts/deps

.PHONY: test
test: deps ## every test with the race detector, peers included
	@echo '==> Testing with the race detector (the first build takes minutes)'
	@dir="$${COUNTERFOIL_VECTORS:-../shared/vectors}"; \
		[ -e "$$dir/rfc9449.json" ] || echo "    vectors of other projects are not in $$dir: the tests that read them skip (COUNTERFOIL_VECTORS names the folder)"
	@COUNTERFOIL_E2E=require CGO_ENABLED=1 go test -race -timeout 40m $(TESTFLAGS) $(PACKAGES)

# How long each target runs, or how many inputs it tries: make fuzz FUZZTIME=10m FUZZ='./ledger FuzzReceipt'
FUZZTIME ?= 3s
FUZZBUILD ?= -fuzz=Fuzz
FUZZ ?=

.PHONY: fuzz
fuzz: ## every fuzz target, one after another, for FUZZTIME each
	@FUZZTIME=$(FUZZTIME) FUZZBUILD=$(FUZZBUILD) scripts/fuzz $(FUZZ)

.PHONY: check
check: ## formatting, vet, linters, import laws, generated files, known vulnerabilities
	@scripts/check

.PHONY: laws
laws: ## show that each import law refuses a file that breaks it
	@scripts/laws

.PHONY: generate
generate: ## write the generated files again
	@go generate ./...

.PHONY: clean
clean: ## remove what was built and fetched here
	@rm -rf bin .deps e2e/node_modules
