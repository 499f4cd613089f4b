# Quickstudy's few commands. `make serve` needs no torch; `make test` installs everything.

HOST ?= 127.0.0.1
web_port := $(or $(PORT),8000)
PORT ?= 3000
MODEL ?= models/en-de
RESULTS ?= benchmarks/results/bench-en-de/results.json
PYTHON ?= python3
VENV ?= .venv
IMAGE ?= quickstudy:latest
IMAGE_OPTS ?=

bin := $(VENV)/bin
# Tests that start processes often wait for them, so one more runs than there are cores.
workers = import os; print(min((os.cpu_count() or 1) + 1, 5))
pytest = $(bin)/python -m pytest --numprocesses $$($(bin)/python -c '$(workers)') --dist loadfile --no-loadscope-reorder
served := $(VENV)/.serve-installed
developed := $(VENV)/.dev-installed
thorough := $(VENV)/.thorough-installed
mutating := $(VENV)/.mutants-installed
packages := web/node_modules/.package-lock.json
export BENTOML_DO_NOT_TRACK := True
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help serve demo-web image test test-all lint mutants bench-readme clean
.DEFAULT_GOAL := help

help:  ## Show these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14
	@echo
	@echo "PORT=3000 and HOST=127.0.0.1 choose where 'make serve' listens,"
	@echo "QUICKSTUDY_MODEL which bundle it serves (QUICKSTUDY_MODELS: which ones), PYTHON which interpreter makes $(VENV)."
	@echo "'make bench-readme' reads RESULTS=benchmarks/results/bench-en-de/results.json."
	@echo "'make demo-web' listens at PORT=8000 and takes its bundle from MODEL=models/en-de."

serve: $(served)  ## Install what serving needs into .venv and serve every bundle in models/
	$(bin)/python -m service.supervisor --host $(HOST) --port $(PORT)

demo-web: $(served) $(packages)  ## Build a page that translates in the browser, and serve it
	$(bin)/python -m export.web $(MODEL) build/web --serve --host $(HOST) --port $(web_port)

# Docker where its engine runs, else Podman, else Buildah. Only Docker's format has health checks.
# BentoML refuses a template outside of the working folder, and puts it into TMPDIR.
image: $(served)  ## Build the container image IMAGE=quickstudy:latest
	@builder="$(BUILDER)"; opts="--opt format=docker"; mkdir -p build/image; \
	if [ -n "$$builder" ]; then :; \
	elif docker info >/dev/null 2>&1; then builder=docker; \
	elif command -v podman >/dev/null; then builder=podman; \
	elif command -v buildah >/dev/null; then builder=buildah; \
	else echo "An image needs Docker, Podman or Buildah; none was found (Debian: apt install podman)" >&2; \
	  exit 1; fi; \
	if [ "$$builder" = docker ]; then opts=; fi; set -x; \
	$(bin)/bentoml build && TMPDIR="$(CURDIR)/build/image" $(bin)/bentoml containerize \
	  quickstudy:latest --backend "$$builder" $$opts $(IMAGE_OPTS) --image-tag $(IMAGE)

# A file's tests stay together, since they share what they have trained; tests/conftest.py orders files.
test: $(developed) lint  ## Install everything into .venv, lint, and run the tests
	$(pytest) -m 'not thorough'

test-all: $(thorough) lint  ## The same with the thorough tests, some five minutes longer
	$(pytest)

lint: $(developed)  ## Check style, types and imports between packages
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

mutants: $(mutating)  ## Count the small faults in the most important files that tests notice
	$(bin)/python -m tests.mutants

bench-readme: $(developed)  ## Write the table and picture of docs/results.md from benchmark results
	$(bin)/quickstudy bench readme $(RESULTS) --page docs/results.md

clean:  ## Remove .venv, caches and build folders
	rm -rf $(VENV) web/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(bin)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Quickstudy needs Python 3.11 or newer, and $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1): run 'make $(MAKECMDGOALS) PYTHON=python3.11'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -f $(bin)/python; exit 1; }

# Stamps: an install runs again only when pyproject.toml or the compiled engine has changed.
installed := pyproject.toml setup.py $(wildcard export/runtime/native/src/*)

# pip compiles byte code on one core, compileall on all; a few packages carry files for other Pythons.
define install
$(bin)/python -m pip install --quiet --no-compile --editable '.$(extras)'
$(bin)/python -m compileall -qq -j 0 $(VENV)/lib || true
endef

$(served): $(installed) | $(bin)/python
	$(install)
	touch $@

$(developed): extras := [train,dev]
$(developed): $(installed) | $(bin)/python
	$(install)
	touch $(served) $@

$(thorough): extras := [train,dev,thorough]
$(thorough): $(installed) | $(bin)/python
	$(install)
	touch $(served) $(developed) $@

$(mutating): extras := [train,dev,mutants]
$(mutating): $(installed) | $(bin)/python
	$(install)
	touch $(served) $(developed) $@

$(packages): web/package.json web/package-lock.json
	@command -v npm >/dev/null || { \
	  echo "The page needs onnxruntime-web from npm, and npm is not installed: install Node.js 18" \
	    "or newer (Debian: apt install nodejs npm; others: https://nodejs.org)" >&2; exit 1; }
	cd web && npm ci --no-progress
	touch $@
