# Two commands matter: `make demo` and `make test`. Each does all its own set-up, and is quick the second time.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# --quiet twice: mirrors that are only folders make pip warn about every package they lack
PIP := --quiet --quiet --disable-pip-version-check

.PHONY: demo test test-long check methods ablations benchmark calibrate clean
.DEFAULT_GOAL := demo

# Everything comes from pip packages, a Redis and a Milvus server included; apt is needed only where
# Python itself came without venv. torch is installed first and with its own requirements, so that the
# same lock gives the CPU build or the CUDA build, whichever the package index serves for this machine.
$(READY): requirements.lock pyproject.toml
	@echo "Setting up .venv (once, about two minutes)"
	if ! $(PYTHON) -m venv .venv 2>/dev/null; then
		apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
		$(PYTHON) -m venv --clear .venv
	fi
	# the carriers of weights declare requirements that only their own code has, hence --no-deps
	grep -E '^setuptools==' requirements.lock | xargs $(BIN)/python -m pip install $(PIP)
	$(BIN)/python -m pip install $(PIP) --constraint requirements.lock torch
	$(BIN)/python -m pip install $(PIP) --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install $(PIP) --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	@$(BIN)/visavox demo

check: $(READY)
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three processes, as tests of workers mostly wait; one thread each, as more of them wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The same drawn examples every time here, new ones in the long run.
test: check
	@$(PYTEST) --hypothesis-profile ci

test-long: check
	@$(PYTEST) -m 'not benchmark'

# Every method on the same invented people, three seeds each: over an hour on two cores; goes on where it was stopped.
SEEDS ?= 3
methods: $(READY)
	@$(BIN)/python -m deploy.methods --seeds $(SEEDS)

# A method in full and with each part changed that its paper or its recipe names: hours; goes on where it was stopped.
METHOD ?= bi_quintuple
ablations: $(READY)
	@$(BIN)/python -m deploy.ablations $(METHOD) --seeds $(SEEDS)

benchmark: $(READY)
	@$(BIN)/python -m tests.benchmarks.ingest_speed
	$(BIN)/python -m tests.benchmarks.find_latency
	$(BIN)/python -m tests.benchmarks.encode_speed
	$(BIN)/python -m tests.benchmarks.evaluation_speed
	$(BIN)/python -m tests.benchmarks.training_speed
	$(BIN)/python -m tests.benchmarks.training_speed --cached --steps 300
	$(BIN)/python -m tests.benchmarks.query_throughput
	$(BIN)/python -m tests.benchmarks.search_latency
	$(BIN)/python -m tests.benchmarks.worker_speed

clean:
	rm -rf .venv visavox-data

# Sets the operating thresholds anew: make calibrate MEDIA=../shared/data/media
MEDIA ?= ../shared/data/media
calibrate: $(READY)
	@$(BIN)/python -m deploy.calibrate $(MEDIA)
