# GPU Commons. `make` lists what there is; nothing needs configuration.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python of at least 3.11 on the search path; setup says what to do when there is none.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && exit; done; echo python3)
# Every process that a test starts would compile all of our code anew.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv/bin
PYTEST := $(VENV)/python -m pytest
# Tests run side by side, a process per core up to four; each process has a database, a broker and servers of its own.
WORKERS ?= auto
SIDE_BY_SIDE := -n $(WORKERS) --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install everything into the checkout (at once when nothing has changed)
	@command -v $(PYTHON) >/dev/null || { echo "setup: no Python found. Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/setup.py

.PHONY: deps
deps: ## Install the Debian packages that some tests use, where this account may
	@tools/deps.sh

.PHONY: demo
demo: setup ## Run the whole portal with a sample company (PORT, COMMONS_DIR)
	@exec $(VENV)/python -m launcher demo

.PHONY: demo-reset
demo-reset: setup ## Throw the demo's data away and run it afresh
	@$(VENV)/python -m launcher reset
	@exec $(VENV)/python -m launcher demo

.PHONY: up
up: setup ## Run the portal without the sample company, for clusters of your own
	@exec $(VENV)/python -m launcher up

.PHONY: check
check: setup ## Lint, types, architecture, specs, deployment files
	@$(VENV)/python -m tools.check

.PHONY: format
format: setup ## Format the Python code and fix what the linter can fix
	@$(VENV)/ruff check --fix --quiet || true
	@$(VENV)/ruff format

.PHONY: test
test: setup deps ## Every test but the long ones; lists what it skipped and why (WORKERS=1: one after the other)
	@$(PYTEST) -rs $(SIDE_BY_SIDE)

.PHONY: test-full
test-full: setup deps ## Every test, the long ones too
	@$(PYTEST) -rs $(SIDE_BY_SIDE) -m "not bench"

.PHONY: bench
bench: setup ## Measure; each benchmark prints its figure, the machine and its load
	@$(PYTEST) -rs -s -m bench tests/bench

.PHONY: test-cluster
test-cluster: setup ## Run the conformance suite against a cluster: make test-cluster KUBECONFIG=path
	@test -n "$${KUBECONFIG:-}" || { echo "Give a cluster: make test-cluster KUBECONFIG=path" >&2; exit 2; }
	@test -r "$${KUBECONFIG}" || { echo "Cannot read $${KUBECONFIG}" >&2; exit 2; }
	@COMMONS_TEST_KUBECONFIG="$${KUBECONFIG}" $(PYTEST) -rs tests/cluster

.PHONY: audit
audit: setup ## Ask the advisories about every locked library, where there is a network
	@$(VENV)/python -m tools.audit

.PHONY: lock
lock: ## Write the locks anew (UPGRADE=1 takes the newest versions)
	@$(VENV)/python tools/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: screenshots
screenshots: setup deps ## Take the pictures of the documentation from the demo
	@$(VENV)/python -m tools.screenshots
