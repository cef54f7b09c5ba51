# Everything runs from a fresh clone with Python 3.11+ and make; the environment is made in .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable

# each process computes on one processor, so that they do not wait for each other; what is imported is compiled once
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
unexport PYTHONDONTWRITEBYTECODE
COVERAGE = --cov --cov-report term:skip-covered --cov-fail-under 90

.PHONY: demo test test-all lint clean

demo: $(VENV)/.demo-ready
	$(BIN)/emfm demo

# a process that has no test left takes over some of those that stand last in another's list: files stay together
test: lint
	$(PYTEST) -n auto --maxprocesses 4 --dist worksteal -m "not slow" --durations 10 $(COVERAGE)

test-all: lint
	$(PYTEST)

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
	rm -rf $(VENV) .coverage demo_output build dist *.egg-info
