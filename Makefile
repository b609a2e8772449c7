# `make demo` and `make test` need Python 3.11 to 3.13, pip, make and git; no compiler and no GPU.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(VENV)/bin

# small batched operations are many times slower with two threads on a busy machine: one thread a process
export OMP_NUM_THREADS = 1
export MPLBACKEND = Agg

.PHONY: demo test lint unit typed docs checker bench clean help

help:
	@echo "make demo    train, simulate and certify the unicycle among obstacles (runs/demo), about 5 minutes"
	@echo "make test    lint, types and the whole test suite, plain and with types checked at run time"
	@echo "make docs    build the documentation (docs/_build/html)"
	@echo "make checker the checker as one file (dist/constrained-nn-check.pyz), which needs NumPy and python-flint"
	@echo "make lint    ruff, pyright and the import rules"
	@echo "make bench   time a rollout, projections and Riccati equations"
	@echo "make clean   remove what was built; keeps runs/ and $(VENV)"

# the stamps depend on pyproject.toml: the environment is made once and renewed when dependencies change
$(VENV)/.stamp: pyproject.toml
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14))" || \
	  { echo "error: Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1). Pass PYTHON=python3.11."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml $(VENV)/.stamp
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable ".[dev]"
	@touch $@

demo: $(VENV)/.stamp
	$(BIN)/constrained-nn demo --resume
	$(BIN)/constrained-nn certify runs/demo/hardnet
	$(BIN)/constrained-nn check runs/demo/hardnet/certificate.json --accept sampled

test: lint unit typed

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	$(BIN)/lint-imports

unit: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

typed: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --typed

docs: $(VENV)/.stamp-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

checker:
	$(PYTHON) .ci/build_checker.py dist/constrained-nn-check.pyz

bench: $(VENV)/.stamp
	$(BIN)/constrained-nn bench rollout
	$(BIN)/constrained-nn bench projection
	$(BIN)/constrained-nn bench riccati

clean:
	rm -rf build dist docs/_build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -exec rm -rf {} +
