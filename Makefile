# Two commands matter: `make demo` and `make test`. Both set everything up by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test lint format install lock benchmarks pictures clean

install: $(INSTALLED)

# The lock is a constraints file: it pins all packages, also those that only a GPU machine's torch asks for.
$(INSTALLED): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	$(BIN)/python -m tasks.databases
	$(BIN)/python -m tasks.postgres
	touch $@

demo: $(INSTALLED)
	$(BIN)/tandem demo

# A third process computes while the others wait for servers. Files stay whole, the long ones begin first, and only one process starts services.
test: lint
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-annotate --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

benchmarks: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks

# The README's, from the home of `make demo`; needs a Chromium.
pictures: $(INSTALLED)
	$(BIN)/python -m tests.pictures

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
