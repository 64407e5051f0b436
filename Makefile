# `make run` sets up and runs the main job; `make test` sets up and runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := flows tasks lightning_modules recognition
# processes that tests run in; what shares something that takes long to make runs in one of them. Tests with servers come
# after the others: a process that has talked to Prefect can't fork loader workers any more
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadgroup
export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test check test-all lint docs screenshots lock bench clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Create .venv from the lock file

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $$UV pip install --quiet --require-hashes --compile-bytecode -r requirements.lock && \
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $$UV pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup  ## Run the main job on the embedded images
	$(BIN)/recognition train experiments/digits_cnn.yaml

lint: setup  ## Style, types and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## The quick inner loop: lint and the tests that need no server
	$(PYTEST) -q -m "not server and not slow"

test: lint  ## Every check
	$(PYTEST) -m "not server and not slow"
	$(PYTEST) -m "server and not slow"

test-all: lint  ## Every check, the long forms too
	$(PYTEST) -m "not server"
	$(PYTEST) -m server

docs: setup  ## Write the generated pages and the schema anew
	$(BIN)/python docs/generate.py

screenshots: setup  ## Take the pictures of docs/prefect.md anew
	RECOGNITION_SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/pytest -q tests/test_browser.py

lock: setup  ## Resolve requirements.lock anew from pyproject.toml
	@UV=$$(command -v uv || echo $(BIN)/uv); \
	$$UV pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock

bench: setup  ## Measure; results go to docs/benchmarks.md
	$(BIN)/python benchmarks/training_throughput.py
	$(BIN)/python benchmarks/house_start.py
	$(BIN)/python benchmarks/trigger_latency.py
	$(BIN)/python benchmarks/orchestration_cost.py
	$(BIN)/python benchmarks/orchestration_cost.py --long
	$(BIN)/python benchmarks/scheduled_runs.py
	$(BIN)/python benchmarks/audit_speed.py
	$(BIN)/python benchmarks/duplicate_detection.py
	$(BIN)/python benchmarks/store_reading.py
	$(BIN)/python benchmarks/sharded_memory.py

clean:  ## Remove what running and testing left behind (not the environment)
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
