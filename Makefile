# The two commands are `make test` and `make bench`; each makes its own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: test bench quick check lint types clean

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

bench: $(INSTALLED)
	$(BIN)/convbench bench

# The benchmarks in their quick form: two batch sizes, a small budget; the report all the same.
quick: $(INSTALLED)
	$(BIN)/convbench bench --batch-sizes 1,8 --budget 0.2 --out results/quick

check: $(INSTALLED)
	$(BIN)/convbench check --suite default --suite alexnet --batch-sizes 2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "convbench needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
