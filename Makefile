# Everything runs from a fresh clone with Python 3.11+ and make; the environment is made in .venv on first use.
PYTHON ?= python3
VENV ?= .venv
# where an environment keeps its programs
ifeq ($(OS),Windows_NT)
BIN = $(VENV)/Scripts
else
BIN = $(VENV)/bin
endif
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable

# each process computes on one processor, so that they do not wait for each other; what is imported is compiled once
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
unexport PYTHONDONTWRITEBYTECODE
COVERAGE = --cov --cov-report term:skip-covered --cov-fail-under 90

.PHONY: demo test test-all lint ruff ruff-format mypy rendered docs clean

demo: $(VENV)/.demo-ready
	$(BIN)/emfm demo

# a process that has no test left takes over some of those that stand last in another's list: files stay together
test: lint
	$(PYTEST) -n auto --maxprocesses 4 --dist worksteal -m "not slow" --durations 10 $(COVERAGE)

test-all: lint
	$(PYTEST)

lint: ruff ruff-format mypy

ruff: $(VENV)/.test-ready
	$(BIN)/ruff check .

ruff-format: $(VENV)/.test-ready
	$(BIN)/ruff format --check .

mypy: $(VENV)/.test-ready
	$(BIN)/mypy

# cards and tables that are made from committed results
rendered: $(VENV)/.test-ready
	$(BIN)/python -m benchmarks.render --check
	$(BIN)/python -m model_cards.render --check

# the documentation as a site, in build/docs; a warning or a broken link is an error
docs: $(VENV)/.test-ready
	$(BIN)/python docs/site/links.py
	$(BIN)/python -m sphinx -W --keep-going -q -E -c docs/site . build/docs

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("emfm needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP_INSTALL) .
	@touch $@

$(VENV)/.test-ready: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP_INSTALL) ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) .coverage demo_output build dist *.egg-info
