# The only commands a person needs. Wants Python 3.11 or newer, make and git; the rest comes from PyPI into .venv.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
# Two at a time: those that share the one whole stack, and all others (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder
READY := .venv/.installed
# The command line on the stack that runs.
ON_THE_STACK = $(BIN)/python -m local status >/dev/null || { echo "the stack is not running: make up first" >&2; exit 1; }; \
  environment="$$($(BIN)/python -m local env)" && eval "$$environment" && $(BIN)/python -m mailing.cli
# The first of the workers: what is copied to it is where it runs.
IN_A_WORKER := docker compose exec -T --index 1 worker
ON_A_WORKER := $(IN_A_WORKER) python -m mailing.cli

# Where it is set (many images do), Airflow would compile itself anew at each start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo up down status logs test check browser promtool compose-plugin chaos soak bench import export verify tidy lock clean \
  env compose-up compose-down compose-demo compose-status compose-logs compose-import compose-export compose-verify compose-test

help:  ## What you can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

demo: $(READY)  ## Start everything, import 20,000 clients, send two campaigns, show the result
	@$(BIN)/python -m local.demo

up: $(READY)  ## Start PostgreSQL, Airflow and the gateway simulator
	@$(BIN)/python -m local up

down: $(READY)  ## Stop everything; the data stay
	@$(BIN)/python -m local down

status: $(READY)  ## What runs, since when, on which port
	@$(BIN)/python -m local status

logs: $(READY)  ## Follow the logs (of one process: make logs PROCESS=scheduler)
	@$(BIN)/python -m local logs $(PROCESS)

test: $(READY)  ## Run the tests (some of them: make test ARGS='-k throttle')
	@$(PYTEST) $(ARGS)

check: $(READY)  ## What CI runs: lint, format, types, tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(PYTEST) $(ARGS)

browser:  ## Install the browser that tests/browser drives: Debian's Chromium, as root (they are skipped without one)
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

promtool: $(READY)  ## Put Debian's promtool into .venv: it tries the alerts (one test is skipped without it)
	@test -x $(BIN)/promtool || { folder="$$(mktemp -d)" && (cd "$$folder" && apt-get download -qq prometheus) && \
	  dpkg-deb --fsys-tarfile "$$folder"/prometheus_*.deb | tar -x -C $(BIN) --strip-components=3 ./usr/bin/promtool && rm -r "$$folder"; }

compose-plugin: $(READY)  ## Put Debian's Docker Compose into .venv: it reads docker-compose.yaml (three tests are skipped without one)
	@docker compose version >/dev/null 2>&1 || test -x $(BIN)/docker-compose || { folder="$$(mktemp -d)" && \
	  (cd "$$folder" && "$(CURDIR)/tests/compose/next-debian" docker-compose) && dpkg-deb --fsys-tarfile "$$folder"/docker-compose_*.deb | \
	  tar -x -C $(BIN) --strip-components=5 ./usr/libexec/docker/cli-plugins/docker-compose && rm -r "$$folder"; }

chaos: $(READY)  ## Kill everything while 20,000 messages are sent, count what was promised (ARGS='--seed 7 --faults 30')
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: $(READY)  ## Act on campaigns at random for 10 minutes (MINUTES=3), judge promises, memory, connections and tables
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(ARGS)

bench: $(READY)  ## Measure speed, throttle and memory (some of it: make bench ARGS='--quick --only sender_ratio')
	@$(BIN)/python -m benchmarks $(ARGS)

import: $(READY)  ## Import clients: make import FILE=clients.csv
	@test -n "$(FILE)" || { echo "FILE is not set: wanted make import FILE=clients.csv" >&2; exit 2; }
	@$(ON_THE_STACK) import "$(FILE)"

export: $(READY)  ## Outcomes of a campaign into a file, .csv or .parquet: make export CAMPAIGN=17 FILE=out.parquet
	@test -n "$(CAMPAIGN)" && test -n "$(FILE)" || { echo "wanted make export CAMPAIGN=17 FILE=out.parquet (or out.csv)" >&2; exit 2; }
	@$(ON_THE_STACK) export "$(CAMPAIGN)" "$(FILE)"

verify: $(READY)  ## Count the ledger anew, tell where a kept count differs (of one: make verify ARGS='--campaign 17')
	@$(ON_THE_STACK) verify $(ARGS)

tidy: $(READY)  ## Remove Airflow's history older than 90 days (make tidy ARGS='--days 30 --dry-run')
	@$(ON_THE_STACK) tidy $(ARGS)

lock: $(READY)  ## Freeze what requirements.txt pulls in into constraints.txt
	@$(BIN)/uv pip compile --quiet --no-header --no-annotate --upgrade requirements.txt --output-file constraints.txt

env:  ## Write .env with random secrets for docker-compose.yaml, or fill in what is empty in the one that is there
	@$(PYTHON) -m local.cluster_env

compose-up: env  ## Start the cluster, without simulator and demo (two workers: MAILING_WORKERS=2 in .env)
	@COMPOSE_PROFILES= docker compose up --build --detach --wait $(ARGS)

compose-down:  ## Stop it, scheduler and workers first: their tasks go on at the next start; the data stay
	@docker compose --profile demo stop scheduler
	@docker compose --profile demo stop worker
	@docker compose --profile demo down $(ARGS)

compose-demo: env  ## The demo on the cluster, with the gateway simulator
	@docker compose --profile demo run --build --rm demo

compose-status:  ## What runs of the cluster, and how it feels
	@docker compose --profile demo ps

compose-logs:  ## Follow the cluster's logs (of one service: make compose-logs SERVICE=worker)
	@docker compose --profile demo logs --follow $(SERVICE)

# By a pipe, for `docker compose cp` keeps owner and mode: a list that only its owner may read the worker could not read.
compose-import:  ## Import clients on the cluster: make compose-import FILE=clients.csv
	@test -n "$(FILE)" || { echo "FILE is not set: wanted make compose-import FILE=clients.csv" >&2; exit 2; }
	@$(IN_A_WORKER) sh -c 'rm -f "$$0" && cat > "$$0"' "/opt/airflow/imports/$(notdir $(FILE))" < "$(FILE)"
	@$(ON_A_WORKER) import --actor "$$(id -un)" "/opt/airflow/imports/$(notdir $(FILE))"

compose-export:  ## As make export, from the cluster: make compose-export CAMPAIGN=17 FILE=out.parquet
	@test -n "$(CAMPAIGN)" && test -n "$(FILE)" || { echo "wanted make compose-export CAMPAIGN=17 FILE=out.parquet (or out.csv)" >&2; exit 2; }
	@$(ON_A_WORKER) export "$(CAMPAIGN)" "/tmp/$(notdir $(FILE))"
	@docker compose cp --index 1 "worker:/tmp/$(notdir $(FILE))" "$(FILE)"; code=$$?; \
	  $(IN_A_WORKER) rm "/tmp/$(notdir $(FILE))"; exit $$code

compose-verify:  ## As make verify, on the cluster
	@$(ON_A_WORKER) verify $(ARGS)

compose-test: $(READY)  ## Send 50,000 messages on the cluster, strike it meanwhile, count what was promised (wants Docker)
	@$(BIN)/python -m tests.compose $(ARGS)

clean:  ## Stop everything; delete .venv and var/ with all data in it
	@if [ -e $(READY) ]; then $(BIN)/python -m local clean; \
	elif [ -e var ]; then echo "var/ may belong to a running stack, and .venv is incomplete: make down first" >&2; exit 1; fi
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A folder that was not finished, or whose Python is gone, is made anew.
$(READY): requirements.txt constraints.txt
	@found="$$($(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep="."); sys.exit(sys.version_info < (3, 11))' 2>/dev/null)" \
	  || { echo "$(PYTHON) is $${found:-not there}: wanted Python 3.11 or newer (make PYTHON=/path/to/python3.11 …)" >&2; exit 1; }
	@test ! -L .venv || { echo ".venv is a link: bring it up to date where it is" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv"; $(PYTHON) -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "installing requirements.txt into .venv"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt -c constraints.txt
	@touch $@
