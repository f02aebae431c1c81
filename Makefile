# TaskBridge is a workspace of Go modules. "make" says what can be made; what CI
# runs is "make test".

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

GO ?= go

# Every module, those first on which others build. release/rules checks that none
# is missing. release is no part of the workspace: it alone needs its library.
MODULES := core fakes adapters/process adapters/asynq adapters/temporal adapters/k8sjob server \
	examples/embedding examples/checksums examples/asynq-worker examples/remote-worker \
	examples/embedding-process examples/temporal-worker examples/k8sjob
ALL_MODULES := $(MODULES) release deploy/kubernetes/e2e

# Where the working copy belongs to somebody else (a container, say), git answers
# nothing, and go would fail for want of a revision that no test needs.
TESTENV := GOFLAGS="$(strip $(GOFLAGS) -buildvcs=false)"

# Tools, built from source into .cache/bin: the Go module proxy is all that is needed.
GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION := v1.13.0
GOVERSION := $(shell $(GO) env GOVERSION)
TOOLS := $(CURDIR)/.cache/bin
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)-$(GOVERSION)
GOTESTSUM := $(TOOLS)/gotestsum-$(GOTESTSUM_VERSION)-$(GOVERSION)

# A Temporal server for tests, named after what it is built from.
DEVSERVER := adapters/temporal/devserver
TEMPORAL_DEVSERVER := $(TOOLS)/temporal-devserver-$(shell cat $(DEVSERVER)/go.* $(DEVSERVER)/*.go | cksum | cut -d' ' -f1)-$(GOVERSION)

# A Kubernetes cluster for tests, named after what it is built from.
TESTCLUSTER := adapters/k8sjob/testcluster
K8S_TESTCLUSTER := $(TOOLS)/k8s-testcluster-$(shell cat $(TESTCLUSTER)/go.* $(TESTCLUSTER)/*.go \
	$(TESTCLUSTER)/internal/{cluster,component,image}/*.go | cksum | cut -d' ' -f1)-$(GOVERSION)
# The tests of deploy/kubernetes: outside of the workspace, for what renders manifests.
DEPLOY_TESTS := deploy/kubernetes/e2e
# Packages of the cluster that don't take all of Kubernetes to compile.
TESTCLUSTER_PACKAGES := ./internal/cluster/... ./internal/image/... ./internal/smoke/...

# More flags for go test, as in: make test-core TESTFLAGS="-run Cancel -v"
TESTFLAGS ?=
RESULTS := $(CURDIR)/.cache/results

# How long "make soak" lets each module's random tests run.
SOAKTIME ?= 10m

say = @printf '\n\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help: ## say what can be made
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## run the server on 127.0.0.1:8080; more flags in ARGS
	$(GO) run ./server/cmd/taskbridge serve $(ARGS)

.PHONY: build
build: ## build bin/taskbridge
	cd server && GOWORK=off $(GO) build -trimpath -o ../bin/taskbridge ./cmd/taskbridge

.PHONY: dev-temporal
dev-temporal: export TASKBRIDGE_TEMPORAL_DEVSERVER = $(TEMPORAL_DEVSERVER)
dev-temporal: temporal-devserver ## a Temporal server, a TaskBridge server and an example worker, to try
	@.ci/dev-temporal

.PHONY: dev-k8sjob
dev-k8sjob: export TASKBRIDGE_TESTCLUSTER = $(K8S_TESTCLUSTER)
dev-k8sjob: ## a Kubernetes cluster, a TaskBridge server and an example job, to try
	@[ "$$(.ci/need-containerd)" = own ]
	@$(MAKE) k8s-testcluster
	@$(K8S_TESTCLUSTER) run -- .ci/dev-k8sjob

.PHONY: dev-cluster
dev-cluster: ## a Kubernetes cluster alone, to run single tests on
	@[ "$$(.ci/need-containerd)" = own ]
	@$(MAKE) k8s-testcluster
	@$(K8S_TESTCLUSTER) up

##
## Tests

STEPS := check lint test-core test-fakes test-process test-asynq test-temporal test-k8sjob \
	test-server test-examples test-deploy test-rehearsal

.PHONY: test
test: ## everything that must pass before a change lands
	@rm -rf $(RESULTS)
	@start=$$SECONDS; for step in $(STEPS); do \
		$(MAKE) $$step || { printf '\nmake test: FAILED at "make %s"\n' "$$step"; exit 1; }; \
	done; \
	awk -f .ci/summary.awk $(RESULTS)/*.json; \
	.ci/need-containerd >/dev/null; \
	printf 'make test: everything passed, in %d min %02d s\n' $$(((SECONDS-start)/60)) $$(((SECONDS-start)%60))

# test_module tests one module as its users get it, without the workspace, or some
# packages of it. Results of an earlier run don't count: some tests run programs that
# go test can't see.
define test_module
	$(call say,tests of $(1))
	@mkdir -p $(RESULTS)
	@cd $(1) && $(TESTENV) GOWORK=off $(GOTESTSUM) --format standard-quiet \
		--jsonfile-timing-events $(RESULTS)/$(subst /,-,$(1)).json \
		-- -race -count=1 -timeout 20m $(TESTFLAGS) $(or $(2),./...)
endef

# on_cluster makes a target with a Kubernetes cluster in its environment, where this
# machine can have one. What is left out elsewhere is said before and once more at the
# end: go test shows nothing of what a package that passes says.
define on_cluster
	@how=$$(.ci/need-containerd); \
	if [ "$$how" = own ]; then \
		$(MAKE) k8s-testcluster; \
		$(K8S_TESTCLUSTER) run -- $(MAKE) $(1); \
	else \
		$(MAKE) $(1); \
		.ci/need-containerd >/dev/null; \
	fi
endef

.PHONY: test-core
test-core: $(GOTESTSUM) cc ## contracts, services, in-memory stores, conformance suites
	$(call test_module,core)

.PHONY: test-fakes
test-fakes: $(GOTESTSUM) cc ## the fake executor and the fault injection
	$(call test_module,fakes)

.PHONY: test-process
test-process: $(GOTESTSUM) cc ## tasks as local commands
	$(call test_module,adapters/process)

.PHONY: test-asynq
test-asynq: $(GOTESTSUM) cc redis ## the asynq adapter, on a real Redis
	$(call test_module,adapters/asynq)

.PHONY: test-temporal
test-temporal: export TASKBRIDGE_TEMPORAL_DEVSERVER = $(TEMPORAL_DEVSERVER)
test-temporal: $(GOTESTSUM) cc temporal-devserver ## the Temporal adapter, on a real Temporal server
	$(call test_module,adapters/temporal)

.PHONY: test-k8sjob
test-k8sjob: $(GOTESTSUM) cc ## the Kubernetes Jobs adapter, on a real cluster
	$(call on_cluster,test-k8sjob-modules)
	@if [ -x $(K8S_TESTCLUSTER) ] && [ "$$(.ci/need-containerd 2>&1)" = own ]; then $(MAKE) test-k8sjob-lifecycle; fi

.PHONY: test-k8sjob-modules
test-k8sjob-modules:
	$(call test_module,$(TESTCLUSTER),$(TESTCLUSTER_PACKAGES))
	$(call test_module,adapters/k8sjob)

.PHONY: test-k8sjob-lifecycle
test-k8sjob-lifecycle: export TASKBRIDGE_K8S_TESTCLUSTER = $(K8S_TESTCLUSTER)
test-k8sjob-lifecycle:
	$(call test_module,$(TESTCLUSTER)/internal/lifecycle)

.PHONY: test-server
test-server: export TASKBRIDGE_TEMPORAL_DEVSERVER = $(TEMPORAL_DEVSERVER)
test-server: $(GOTESTSUM) cc redis python temporal-devserver ## the server: HTTP, streams, the SQLite store, crashes
	$(call test_module,server)

.PHONY: test-examples
test-examples: export TASKBRIDGE_TEMPORAL_DEVSERVER = $(TEMPORAL_DEVSERVER)
test-examples: $(GOTESTSUM) cc redis temporal-devserver ## the example programs
	$(call test_module,examples/embedding)
	$(call test_module,examples/embedding-process)
	$(call test_module,examples/checksums)
	$(call test_module,examples/asynq-worker)
	$(call test_module,examples/temporal-worker)
	$(call test_module,examples/remote-worker)
	$(call test_module,examples/k8sjob)

.PHONY: test-deploy
test-deploy: export TASKBRIDGE_TESTCLUSTER = $(K8S_TESTCLUSTER)
test-deploy: $(GOTESTSUM) cc ## the server in a pod, and beside a cluster, by deploy/kubernetes
	$(call on_cluster,test-deploy-module)

.PHONY: test-deploy-module
test-deploy-module:
	$(call test_module,$(DEPLOY_TESTS))

.PHONY: test-rehearsal
test-rehearsal: $(GOTESTSUM) cc ## the layout's rules, and the modules as others get them
	$(call test_module,release)

.PHONY: bench
bench: ## the benchmarks: a table, and bench-results/bench.json; more flags in ARGS
	@cd server && $(TESTENV) GOWORK=off $(GO) run ./cmd/taskbridge-bench -json ../bench-results/bench.json $(ARGS)
	@cd server && $(TESTENV) GOWORK=off $(GO) run ./cmd/taskbridge-livebench -json ../bench-results/livebench.json

.PHONY: bench-asynq
bench-asynq: redis ## the asynq adapter beside bare asynq; more flags in ARGS
	@cd adapters/asynq && $(TESTENV) GOWORK=off $(GO) run ./internal/bench $(ARGS)

.PHONY: bench-k8sjob
bench-k8sjob: ## the Kubernetes Jobs adapter beside a bare watch, on a real cluster (10 min)
	$(call on_cluster,bench-k8sjob-module)

.PHONY: bench-k8sjob-module
bench-k8sjob-module:
	@cd adapters/k8sjob && for bench in Start=100x Requests=5x Caches=3x; do \
		$(TESTENV) GOWORK=off $(GO) test -run '^$$' -bench "^BenchmarkCluster$${bench%=*}$$" -benchtime "$${bench#*=}" -timeout 20m . || exit 1; \
	done

.PHONY: soak
soak: export TASKBRIDGE_TEMPORAL_DEVSERVER = $(TEMPORAL_DEVSERVER)
soak: cc redis python temporal-devserver ## the long and random rest (build tag soak); SOAKTIME bounds each module
	$(call on_cluster,soak-modules)

.PHONY: soak-modules
soak-modules:
	@for module in $(MODULES); do \
		printf '\n==> soak of %s\n' "$$module"; \
		(cd $$module && $(TESTENV) GOWORK=off TASKBRIDGE_SOAK_TIME=$(SOAKTIME) \
			$(GO) test -race -tags soak -run Soak -timeout 0 -v ./...); \
	done

##
## Checks

.PHONY: check
check: check-format check-build check-modules ## formatting, builds with and without the workspace, go.mod files

.PHONY: check-format
check-format:
	$(call say,gofmt)
	@unformatted=$$(git ls-files -z --cached --others --exclude-standard -- '*.go' | xargs -0 gofmt -l); \
	if [ -n "$$unformatted" ]; then printf 'not as gofmt has it (make fmt mends it):\n%s\n' "$$unformatted"; exit 1; fi

.PHONY: check-build
check-build:
	$(call say,go build in the workspace)
	@$(TESTENV) $(GO) build work

.PHONY: check-modules
check-modules:
	$(call say,each module by itself: go mod tidy and go build and go vet without the workspace)
	@for module in $(ALL_MODULES); do \
		printf '%s\n' "$$module"; \
		(cd $$module && export GOWORK=off $(TESTENV) && \
			$(GO) mod tidy -diff && $(GO) build -o /dev/null ./... && $(GO) vet -tags soak ./...) \
		|| { printf '\n%s is not right by itself (make tidy mends go.mod)\n' "$$module"; exit 1; }; \
	done
	@cd $(TESTCLUSTER) && GOWORK=off $(GO) mod tidy -diff # to build all of Kubernetes takes too long
	@# To build, vet or lint it is to compile a Temporal server: test-temporal does the first.
	@printf '%s\n' $(DEVSERVER); cd $(DEVSERVER) && GOWORK=off $(TESTENV) $(GO) mod tidy -diff \
		|| { printf '\nthe go.mod of $(DEVSERVER) is not right (make tidy mends it)\n'; exit 1; }

.PHONY: lint
lint: $(GOLANGCI_LINT) ## golangci-lint over everything
	$(call say,golangci-lint $(GOLANGCI_LINT_VERSION))
	@$(GOLANGCI_LINT) run --allow-parallel-runners $(MODULES:%=./%/...)
	@cd release && GOWORK=off $(GOLANGCI_LINT) run --allow-parallel-runners ./...
	@cd $(DEPLOY_TESTS) && GOWORK=off $(GOLANGCI_LINT) run --allow-parallel-runners ./...
	@cd $(TESTCLUSTER) && GOWORK=off GOOS=linux $(GOLANGCI_LINT) run --allow-parallel-runners $(TESTCLUSTER_PACKAGES) ./internal/lifecycle/...

##
## Upkeep

.PHONY: fmt
fmt: ## format all Go files
	@git ls-files -z --cached --others --exclude-standard -- '*.go' | xargs -0 gofmt -w

.PHONY: tidy
tidy: ## tidy every go.mod
	@for module in $(ALL_MODULES) $(DEVSERVER) $(TESTCLUSTER); do printf '%s\n' "$$module"; (cd $$module && GOWORK=off $(GO) mod tidy); done

.PHONY: cc
cc:
	@CC="$$($(GO) env CC)" .ci/need-cc

.PHONY: temporal-devserver
temporal-devserver: $(TEMPORAL_DEVSERVER)

$(TEMPORAL_DEVSERVER):
	$(call say,building a Temporal server for the tests: once and for five to ten minutes)
	@mkdir -p $(TOOLS)
	@cd $(DEVSERVER) && $(TESTENV) GOWORK=off nice $(GO) build -gcflags=all=-dwarf=false -ldflags='-s -w' -o $@.tmp . && mv $@.tmp $@

.PHONY: k8s-testcluster
k8s-testcluster: $(K8S_TESTCLUSTER)

# Without cgo, so that no C compiler is needed. Debugging information would take the
# linker beyond 4 GB of memory.
$(K8S_TESTCLUSTER):
	$(call say,building a Kubernetes cluster for the tests: once and for five to ten minutes)
	@mkdir -p $(TOOLS)
	@cd $(TESTCLUSTER) && $(TESTENV) GOWORK=off CGO_ENABLED=0 nice $(GO) build -gcflags=all=-dwarf=false \
		-ldflags='-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2' -o $@.tmp . && mv $@.tmp $@

.PHONY: redis
redis:
	@.ci/need-redis

.PHONY: python
python:
	@.ci/need-python

$(GOLANGCI_LINT):
	$(call say,building golangci-lint $(GOLANGCI_LINT_VERSION): once and for a minute or two)
	@$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION))

$(GOTESTSUM):
	$(call say,building gotestsum $(GOTESTSUM_VERSION): once)
	@$(call install,gotest.tools/gotestsum@$(GOTESTSUM_VERSION))

install = rm -rf $@.tmp && mkdir -p $@.tmp && GOWORK=off GOFLAGS= GOBIN=$@.tmp $(GO) install $(1) && mv $@.tmp/* $@ && rmdir $@.tmp
