# make run    install into .venv and watch the default session
# make test   install the development tools too and run every check; the tests also once without the compiler
# make check  a minute between two edits: format, lint, types, imports, kernels without the compiler and without processes
# make soak   long runs
# make docs   write the reference pages from the code
# make orders-table  write docs/orders-table.md: every basic order verified on every machine, in minutes
# make bench  the figures, as ratios measured in one run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

.PHONY: run test lint check quick chromium soak docs orders-table bench clean distclean

run: $(VENV)/.installed
	$(BIN)/stress run --order=block-first

test: lint chromium
	$(BIN)/pytest --numprocesses=2 --dist=loadfile -m "not soak and not alone"
	$(BIN)/pytest -m "alone and not soak"
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest --numprocesses=2 --dist=worksteal tests/machine

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs=2 lint quick

quick: $(VENV)/.installed-dev
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest --numprocesses=2 --dist=worksteal --hypothesis-profile=quick -m "not soak and not thorough" tests/machine

# A browser opens the report in the tests. It is no Python package, so the system's package manager has it.
chromium:
	@for each in chromium chromium-browser google-chrome; do command -v $$each >/dev/null && exit 0; done; \
	    if [ "$$(id -u)" = 0 ]; then apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends chromium; \
	    else echo "the report's tests need a browser: sudo apt-get install chromium" >&2; exit 1; fi

soak: $(VENV)/.installed-dev
	$(BIN)/pytest -m soak --timeout=1800
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -m soak --timeout=1800 tests/machine

docs: $(VENV)/.installed
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/predictions.py

orders-table: $(VENV)/.installed
	NUMBA_DISABLE_JIT=1 $(BIN)/python docs/orders_table.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# The stamps make an up-to-date installation free. The package is installed in place: only its metadata matters.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "stress needs Python 3.11 or newer; name one: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "installing into $(VENV)"
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "installing into $(VENV), with the development tools"
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.installed $@
