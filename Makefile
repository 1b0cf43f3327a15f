# Every target sets up what it needs and works from a clean clone. ARGS is passed on: make quickstart ARGS=--fast
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SGLANG_VENV := .venv-sglang
NEMO_RUN_VENV := .venv-nemo-run
ARGS ?=
export HF_HUB_OFFLINE ?= 1

.PHONY: setup sglang nemo-run slurm quickstart test lint bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3.11 found: install it, or run make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,eval,dedup,wandb,dev]'
	@touch $@

# The rollout server's own environment: SGLang pins its own torch (rl/rollout/sglang_cpu/README.md).
sglang: $(SGLANG_VENV)/.ready

$(SGLANG_VENV)/.ready: rl/rollout/sglang_cpu/packages.txt constraints.txt
	test -x $(SGLANG_VENV)/bin/python || $(PYTHON) -m venv $(SGLANG_VENV)
	$(SGLANG_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(SGLANG_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt -r rl/rollout/sglang_cpu/packages.txt
	@touch $@

# NeMo-Run's own environment: its dependencies pin other versions than ours (docs/decisions.md).
nemo-run: $(NEMO_RUN_VENV)/.ready

$(NEMO_RUN_VENV)/.ready: launch/submit/nemo_run_packages.txt
	test -x $(NEMO_RUN_VENV)/bin/python || $(PYTHON) -m venv $(NEMO_RUN_VENV)
	$(NEMO_RUN_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r launch/submit/nemo_run_packages.txt
	@touch $@

# A Slurm that the tests can bring up, on Debian as root; starts nothing.
slurm:
	.ci/install_slurm

quickstart: setup
	$(BIN)/osim quickstart $(ARGS)

# Two processes share the test files, slow ones first (tests/conftest.py).
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup
	$(BIN)/osim bench $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
