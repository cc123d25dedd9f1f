# make demo | test | check | bench | docs | format.  Each makes the virtual environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
BENCHMARKS ?= $(basename $(notdir $(shell grep -l '^    sys.exit.benchmark_main' benchmarks/*.py)))

.PHONY: demo test check bench docs format clean
.DEFAULT_GOAL := help
.PHONY: help

help:
	@sed -n 's/^# make //p' Makefile

# A stamp is newer than pyproject.toml while nothing needs installing. A virtual environment made by hand
# is used as it is: pip only adds what is missing.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Gracile needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-core: pyproject.toml | $(BIN)/python
	$(PIP) install torch torchvision
	$(PIP) install -e .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/python
	$(PIP) install torch torchvision
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.stamp-core

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	$(PIP) install -e '.[bench]'
	@touch $@

demo: $(VENV)/.stamp-core
	$(BIN)/gracile demo

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: $(VENV)/.stamp-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n $(WORKERS) --doctest-modules src benchmarks/rows.py benchmarks/tables.py
	$(BIN)/python -m benchmarks check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.stamp-bench
	for name in $(BENCHMARKS); do \
	    $(BIN)/python -m benchmarks.$$name --json docs/results/$$name.json || exit 1; \
	done
	$(BIN)/python -m benchmarks tables

docs: $(VENV)/.stamp-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist site runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
