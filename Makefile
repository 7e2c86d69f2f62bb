# `make help` lists the targets. The environment is .venv; source files are used in place, so that editing them needs no
# second installation.

PYTHON ?= python3
OTHER_PYTHON := name another, as in make quickstart PYTHON=python3.11
VENV := .venv
NODES := stkd-nodes
BIN := $(VENV)/bin
QUICKSTART := $(VENV)/.installed-quickstart
DEV := $(VENV)/.installed-dev
BROWSER := $(VENV)/.installed-browser
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-input -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadgroup
PACKAGES := $(patsubst %/__init__.py,%,$(wildcard */__init__.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: quickstart test test-fast test-cluster lint types docs bench nodes clean help

quickstart: $(QUICKSTART)  ## install, then search for a small student: no GPU, no data, 5 to 8 minutes on 2 cores
	$(BIN)/stkd sweep --space search_spaces/quickstart.yaml $(OPTIONS)

test: $(DEV) $(BROWSER)  ## install, then run all tests
	$(PYTEST)

test-fast: $(DEV)  ## the tests that take a second at most
	$(PYTEST) -m "not slow and not bench and not cluster"

test-cluster: $(DEV)  ## sweeps on several hosts that lose hosts, links, servers and storage; needs root for most of them
	$(BIN)/python -m pytest -m cluster

lint: $(DEV)  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(DEV)  ## mypy, strict
	@mkdir -p .typecheck/stkd
	@for package in $(PACKAGES); do ln -sfn ../../$$package .typecheck/stkd/$$package; done
	$(BIN)/mypy -p stkd
	$(BIN)/mypy tests docs
	$(BIN)/mypy benchmarks

docs: $(QUICKSTART)  ## write the pages of reference anew, docs/space-file.md and docs/commands.md
	$(BIN)/python docs/generate.py

bench: $(QUICKSTART)  ## measure what stkd is faster than; ONLY="steps scores" runs some
	$(BIN)/python benchmarks/run.py $(ONLY)

nodes: $(QUICKSTART)  ## what the nodes of a cluster need, in stkd-nodes/: stkd, its pins, and a token
	@mkdir -p $(NODES)
	rm -rf build $(NODES)/stkd-*.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(NODES) .
	cp constraints.txt $(NODES)
	@test -e $(NODES)/env || (umask 077 && token=$$($(BIN)/python -c 'import secrets; print(secrets.token_hex(32))') \
		&& printf %s $$token > $(NODES)/auth_token && echo "RAY_AUTH_TOKEN=$$token" > $(NODES)/env)

clean:  ## remove the environment and everything that tools left; results in stkd-runs/ stay
	rm -rf $(VENV) .typecheck build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(wildcard $(PACKAGES) tests benchmarks) -name __pycache__ -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

$(QUICKSTART): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "there is no $(PYTHON): $(OTHER_PYTHON)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "stkd needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1): $(OTHER_PYTHON)"; exit 1; }
	@echo "installing into $(VENV): some minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --no-compile -e '.[quickstart]'
	@echo "compiling on all cores"  # pip would take one core, and twice its time
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true  # some packages hold files for other Pythons
	@touch $@

$(DEV): $(QUICKSTART)
	$(PIP_INSTALL) -e '.[quickstart,onnx,dev]'
	@touch $@

$(BROWSER): $(DEV)  # Debian's, where we may install it; the tests that drive it skip themselves where there is none
	@command -v chromium > /dev/null || test "$$(id -u)" != 0 || ! command -v apt-get > /dev/null || { \
		echo "installing chromium, which tests drive" && apt-get -qq update \
		&& DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium > /dev/null; } \
		|| echo "chromium could not be installed: tests that drive it skip themselves"
	@touch $@
