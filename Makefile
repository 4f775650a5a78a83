# SPDX-License-Identifier: Apache-2.0
GO      ?= go
VERSION ?= v0.1.0
LDFLAGS  = -s -w -X main.version=$(VERSION) -X funlab.casa/omen/plugin.Version=$(VERSION)
BUILD    = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
TOOL     = $(GO) tool -modfile=tools/go.mod
FUZZTIME ?= 20s

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-openssl-provider test-keylime-agent lint fuzz bench build release packages clean

help: ## show these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 32

setup: ## install what the demo and the tests need (Debian packages, OpenBao, Keylime)
	@test/setup/setup.sh

build: ## build omen-agent and openbao-plugin-auth-tpm into bin/
	@$(BUILD) -o bin/ ./cmd/...

release: ## write the plugin's release files for VERSION into dist/out/
	@cd tools && $(GO) run ./release -version '$(VERSION)' -source .. -out ../dist/out

packages: ## write .deb and .rpm of agent and plugin for VERSION into dist/out/
	@cd tools && $(GO) run ./package -version '$(VERSION)' -source .. -out ../dist/out

demo: setup build ## play the whole story with real parts (root, under two minutes)
	@$(BUILD) -o bin/ ./test/demo ./test/standin
	@bin/demo

test: setup build ## run every test, race detector on (root, about ten minutes)
	@$(BUILD) -o bin/ ./test/demo ./test/standin
	@test/run.sh

# A computer with firmware that measures is made on amd64 alone.
VM = $(if $(filter amd64,$(shell $(GO) env GOARCH)),./test/vm)

test-long: setup build packages ## what takes longer: a real systemd, leaders killed, every crash, outages at each step (root, under twenty minutes)
	@$(BUILD) -o bin/ ./test/standin ./test/soak/soaker
	@test/setup/debian-root.sh >/dev/null
	@go test -race -json -count=1 -tags long -timeout 20m ./test/systemd ./test/cluster ./test/crash ./test/soak ./test/boot ./test/faults $(VM) | go run ./test/sum

test-openssl-provider: export PROVIDER := $(PROVIDER)
test-openssl-provider: setup ## have Python's ssl use keys in a TPM, with PROVIDER=/path/tpm2.so (tpm2-openssl 1.3 or newer)
	@$(GO) test -race -count=1 -tags provider -timeout 10m ./test/openssl

test-keylime-agent: export KEYLIME_AGENT := $(KEYLIME_AGENT)
test-keylime-agent: setup build ## have a Rust agent attest while its certificates change, with KEYLIME_AGENT=/path/keylime_agent (0.2.9 or newer)
	@$(BUILD) -o bin/ ./test/standin
	@$(GO) test -race -count=1 -tags keylimeagent -timeout 20m ./test/attestation

lint: ## judge the code: gofmt, go vet, golangci-lint, shellcheck, tidy modules
	@test/lint.sh

fuzz: ## fuzz every parser the network reaches, FUZZTIME each (20s)
	@test/fuzz.sh $(FUZZTIME)

bench: setup build ## measure, and write bench/RESULTS.md and bench/results.json (root, under 40 minutes)
	@$(BUILD) -o bin/ ./test/standin ./test/soak/soaker
	@cd bench && $(GO) run .

bench-short: setup build ## measure less, and print only (root, under five minutes)
	@$(BUILD) -o bin/ ./test/standin ./test/soak/soaker
	@cd bench && $(GO) run . -short

clean: ## remove bin/, dist/out/ and the caches of this checkout
	@rm -rf bin dist/out .cache
