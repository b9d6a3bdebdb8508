# Every target builds .venv here first and uses nothing outside it; no environment needs to be active.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOG := .venv/install.log
TASK ?= basics/hello_world
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test check format protos reference bench up down compose-test clean
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv with everything; again only when what it is made of changes
	@:

$(STAMP): pyproject.toml constraints.txt hatch_build.py services/evaluator/altlas_evaluator/sandbox/_forkloop.c
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); AltLAS needs Python 3.11 or newer: name one with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv || { \
	  echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setup: installing into .venv (minutes the first time; log: $(LOG))"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[learn,brainf,report,local,dev]' \
	  >$(LOG) 2>&1 || { tail -n 25 $(LOG) >&2; echo "setup failed; the whole log: $(LOG)" >&2; exit 1; }
	@touch $@

run: setup ## Learn TASK (basics/hello_world) with every role as a local process
	@$(BIN)/altlas train $(TASK) $(ARGS)

test: setup ## Run the tests; ARGS are pytest's
	@$(BIN)/python -m pytest $(ARGS)

check: setup ## Formatting, lint, types, layers, protos, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python -m altlas.config.reference --check
	$(BIN)/python -m altlas.report.controls --check
	$(BIN)/python -m altlas.cli.metrics_reference --check
	$(BIN)/python deploy/grafana/generate.py --check
	$(BIN)/python -m pytest -q tests/unit/test_protos_drift.py

format: setup ## Apply ruff's formatting and its safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: setup ## Regenerate src/altlas/rpc/*/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=src --pyi_out=src --grpc_python_out=src \
	  $$(find protos -name '*.proto')

reference: setup ## Regenerate config.ini, docs/configuration.md, docs/metrics.md, the controls' record, the dashboards
	$(BIN)/python -m altlas.config.reference --write
	$(BIN)/python -m altlas.report.controls --write
	$(BIN)/python -m altlas.cli.metrics_reference --write
	$(BIN)/python deploy/grafana/generate.py --write

bench: setup ## Programs per second by stage
	@$(BIN)/python -m benchmarks $(ARGS)

up: ## Build and start all roles with docker compose
	docker compose up --build --detach --wait

down: ## Stop them; the volumes stay
	docker compose --profile '*' down --remove-orphans

compose-test: setup ## Drill and probe the stack of docker compose on a real engine (deploy/testing/README.md)
	@$(BIN)/python deploy/testing/compose_test.py $(ARGS)

clean: ## Remove .venv and caches; runs/ stays
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
