# `make demo` and `make test` set up .venv by themselves. `make help` lists the rest.
# Works with GNU make 3.81 (macOS) and later, and any POSIX shell.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= auto
ARGS ?=
JOBS ?= 2

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
PIP := "$(PY)" -m pip install -q --disable-pip-version-check --no-input -c constraints.txt
PINS := pyproject.toml constraints.txt
# Under a minute of CPU: what a mistake in the core shows in first.
QUICK := tests/core/test_prompts.py tests/core/test_space.py tests/core/test_facades.py tests/core/test_oracles.py \
	tests/plugins/test_import_rule.py tests/plugins/test_contract_checks.py tests/integrations/test_same_vectors.py

# Environment variables that would let another environment's packages in.
unexport PYTHONPATH
unexport PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test quick examples lint format types docs extras lowest wheel llama infinity chromium load pictures clean distclean check

help:  ## Show this list
	@echo "make demo        ask the Python standard library a question (no model download)"
	@echo "make test        run the tests"
	@echo "make quick       the tests to run while you work: prompts, spaces, facades, vectors against their oracles"
	@echo "make examples    run every example and compare its output"
	@echo "make lint        ruff: rules and formatting (make format repairs)"
	@echo "make types       mypy, strict"
	@echo "make docs        build the documentation into site/"
	@echo "make extras      resolve every extra against constraints.txt"
	@echo "make lowest      run the tests with the lowest supported versions"
	@echo "make wheel       build sdist and wheel into dist/, install and try the wheel"
	@echo "make llama       build llama.cpp into your cache folder: the tests then ask a real server (minutes; needs cmake)"
	@echo "make infinity    put Infinity into your cache folder: EMBRIEF_INFINITY names it to the tests (1.2 GB)"
	@echo "make load        many clients, connections, mixed traffic and kills on a real server, a minute in all"
	@echo "make pictures    the pictures of the page and of a search in a terminal (needs Chromium)"
	@echo "make clean       remove caches and builds (make distclean: and $(VENV))"
	@echo
	@echo "PYTHON=python3.12   the interpreter to use     VENV=path    the environment (default .venv)"
	@echo "JOBS=0              make test in one process, as a debugger needs it (by default it takes two)"
	@echo "TORCH=cuda          torch's default build      ARGS='...'   passed on, as in make test ARGS='-k prompts'"

# ---- The two commands -------------------------------------------------------------------------

demo: check $(VENV)/.done-demo  ## embrief demo
	@"$(BIN)/embrief" demo $(ARGS)

test: check $(VENV)/.done-test  ## pytest
	@"$(PY)" -m pytest -n $(JOBS) --dist loadfile $(ARGS)

quick: check $(VENV)/.done-test
	@echo "Runs: the prompts of every record, vector spaces, the facades, vectors and scores against the oracles,"
	@echo "      the import rule, the checks for plugins, one text through all frameworks."
	@echo "Not:  downloads, scheduling, number formats, each framework by itself, commands, docs. make test runs all."
	@"$(PY)" -m pytest -q $(QUICK) $(ARGS)

# ---- Quality ----------------------------------------------------------------------------------

examples: check $(VENV)/.done-test
	@"$(PY)" .ci/check_examples.py $(ARGS)

lint: check $(VENV)/.done-dev
	@"$(PY)" -m ruff check .
	@"$(PY)" -m ruff format --check .

format: check $(VENV)/.done-dev
	@"$(PY)" -m ruff check --fix .
	@"$(PY)" -m ruff format .

types: check $(VENV)/.done-test $(VENV)/.done-dev
	@"$(PY)" -m mypy

docs: check $(VENV)/.done-docs
	@NO_MKDOCS_2_WARNING=1 "$(PY)" -m mkdocs build --strict --quiet
	@echo "docs: site/index.html"

extras: check $(VENV)/.done-venv
	@"$(PY)" .ci/check_extras.py

lowest: check $(VENV)/.done-venv
	@"$(PY)" .ci/lowest.py $(ARGS)

wheel: check $(VENV)/.done-dev
	@"$(PY)" .ci/check_wheel.py --out dist

llama: check $(VENV)/.done-venv
	@"$(PY)" .ci/make_llama.py $(ARGS)

load: check $(VENV)/.done-test
	@"$(PY)" .ci/load.py $(ARGS)

pictures: check $(VENV)/.done-test
	@"$(PY)" .ci/make_pictures.py $(ARGS)

chromium:
	@sh .ci/install_chromium.sh

infinity: check $(VENV)/.done-venv
	@"$(PY)" .ci/make_infinity.py $(ARGS)

# ---- Environments: one stamp per set of extras, renewed when the pins change --------------------

$(VENV)/.done-venv:
	@echo "Creating $(VENV)"
	@"$(PYTHON)" -m venv "$(VENV)"
	@touch "$@"

$(VENV)/.done-demo: $(VENV)/.done-torch $(PINS)
	@echo "Installing the demo (about 120 MB, a minute or two)"
	@$(PIP) -e ".[demo]"
	@touch "$@"

$(VENV)/.done-torch: $(VENV)/.done-venv .ci/install_torch.py constraints.txt
	@echo "Installing torch (about 190 MB for the CPU build)"
	@"$(PY)" .ci/install_torch.py "$(TORCH)"
	@touch "$@"

$(VENV)/.done-test: $(VENV)/.done-torch $(PINS)
	@echo "Installing the libraries that the tests use (about 430 MB, a few minutes)"
	@$(PIP) -e ".[all,test,test-stores,test-clients]"
	@touch "$@"

$(VENV)/.done-dev: $(VENV)/.done-venv $(PINS)
	@echo "Installing the development tools"
	@$(PIP) -e ".[dev]"
	@touch "$@"

$(VENV)/.done-docs: $(VENV)/.done-venv $(PINS)
	@echo "Installing the documentation tools"
	@$(PIP) -e ".[docs]"
	@touch "$@"

# ---- First of all: can this machine do it? -------------------------------------------------------

check:
	@sh .ci/check_python.sh "$(PYTHON)" "$(VENV)" "$(PY)" "$(firstword $(MAKECMDGOALS))"

clean:
	@rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .benchmarks
	@find core integrations tests examples .ci -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	@if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
