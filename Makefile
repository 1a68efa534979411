# make demo and make test need Python 3.11 or newer with pip and venv, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := actorstore benchmarks tests docs

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint bench clean

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' Makefile

demo: $(VENV)/demo  ## compile the standard library, and watch the run
	$(BIN)/actorstore demo

test: $(VENV)/test  ## run the tests
	$(BIN)/python -m pytest -q

soak: $(VENV)/test  ## kill, freeze, cut and harass stores for long: make soak MINUTES=5 SEED=1
	$(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/lint  ## linter, formatter, types, layers
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/bench  ## measure side by side with the peers, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks

clean:  ## remove what the other targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "actorstore needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test $(VENV)/lint $(VENV)/bench: $(VENV)/%: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
