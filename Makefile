# Everything runs from a fresh clone with Python 3.11+ and make; the environment is made in .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable

.PHONY: demo test test-all lint clean

demo: $(VENV)/.demo-ready
	$(BIN)/emfm demo

# each process computes on one processor, so that they do not wait for each other
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("emfm needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) .
	@touch $@

$(VENV)/.test-ready: pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) demo_output build dist *.egg-info
