# What a newcomer guesses: demo, build, test, bench, soak, mutate, fuzz, lint.
SHELL := /bin/bash
GO ?= go
BIN := bin
FUZZTIME ?= 60s

.PHONY: help build demo test cover bench soak mutate fuzz lint setup vectors clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## build broker and brokerctl into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/broker ./cmd/brokerctl

demo: build ## play the main job on real input, in under a minute; VAULT=1: with keys in a real Vault
	@$(if $(VAULT),script/vault >/dev/null)
	@$(BIN)/broker demo $(if $(VAULT),--vault)

setup: ## install what the tests need and the machine lacks
	@script/setup

test: setup ## every test with the race detector; nothing is skipped
	@script/test

cover: ## statement coverage of the packages that must stay above 90%
	@script/cover

bench: build ## ratios against the floor server (docs/performance.md)
	$(GO) run ./internal/bench

soak: setup build ## long crash and timing runs
	$(GO) test -tags soak -count=1 -timeout 8h -run TestSoak -v ./e2e/...

mutate: ## break each listed check; its named test must go red. MUTATETIME=40m: as many as that time has room for
	$(GO) run ./internal/mutate $(if $(MUTATETIME),-for $(MUTATETIME))

fuzz: ## every fuzz target for FUZZTIME each
	@FUZZTIME=$(FUZZTIME) script/fuzz

lint: ## gofmt, go vet, golangci-lint, module hygiene
	@script/lint

vectors: ## rewrite verifier/testdata/vectors.json
	$(GO) test ./verifier -run TestVectorsAreGenerated -update

clean:
	rm -rf $(BIN) .cache coverage
