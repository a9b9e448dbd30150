# Two commands: `make demo` runs the main job from nothing, `make test` passes the tests. Both set up what they need.
# Everything is installed into this folder: .venv (the product), .serving (the embedded model server) and, only where
# the full profile is wanted, .models (torch and the server: the papers' own models).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROMENADE = .venv/bin/promenade
QUIET_PIP = PIP_DISABLE_PIP_VERSION_CHECK=1
DATA ?= promenade-data
# Editable packages are built in the folder that they lie in: by one environment at a time, also under make -j.
ONE_BY_ONE = flock .venv/.python

.PHONY: demo test test-models setup models check bench soak clean

## The main job: set up, start the embedded stack, bring in the samples, show the pairs.
demo: setup
	$(PROMENADE) demo --data $(DATA)

## The tests. Whole files go to so many processes at once (0: one after the other, in this one).
TEST_PROCESSES ?= 2
TEST_SHARES = -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
test: setup .venv/.development
	.venv/bin/python -m pytest $(TEST_SHARES) $(PYTEST_OPTIONS) -m "not soak" tests

## The tests of the full profile's models, with torch, at tiny size on the CPU.
test-models: .models/.made
	.models/bin/python -m pytest $(TEST_SHARES) $(PYTEST_OPTIONS) --confcutdir tests/models tests/models

## Style and types.
check: .venv/.development
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --config-file infra/serving/full_models/mypy.ini -p full_models

## The long forms: repeated kills and long outages.
soak: setup .venv/.development
	.venv/bin/python -m pytest -m soak tests

## Ratios against named baselines, written to docs/reports. Up to 5,000 pictures: the better part of an hour.
bench: setup .venv/.development
	.venv/bin/python -m benchmarks.pipeline --long

setup: .venv/.default models

models: .serving/.made
	@.serving/bin/python -m edge_models.build --repository model_repository/edge

.venv/.python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Promenade needs Python 3.11 (found: $$($(PYTHON) --version 2>&1)). Install it, or say: make demo PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "This Python cannot make virtual environments. On Debian or Ubuntu: apt-get install python3.11-venv (or python3-venv)"; exit 1; }
	@"$(PYTHON)" -m venv .venv
	@touch $@

.venv/.default: .venv/.python locks/default.txt pyproject.toml
	@echo "installing Promenade into .venv (the first time this takes a minute)"
	@$(QUIET_PIP) .venv/bin/pip install -q --require-hashes -r locks/default.txt
	@$(QUIET_PIP) $(ONE_BY_ONE) .venv/bin/pip install -q --no-deps -e .
	@touch $@

.venv/.development: .venv/.default locks/development.txt
	@echo "installing what the tests need into .venv"
	@$(QUIET_PIP) .venv/bin/pip install -q --require-hashes -r locks/development.txt
	@$(QUIET_PIP) $(ONE_BY_ONE) .venv/bin/pip install -q --no-deps -e infra/serving/edge_models
	@touch $@

.serving/.made: .venv/.python locks/serving.txt locks/triton.txt infra/serving/edge_models/pyproject.toml
	@echo "installing the model server into .serving (the first time this takes a minute or two)"
	@"$(PYTHON)" -m venv .serving
	@$(QUIET_PIP) .serving/bin/pip install -q --require-hashes -r locks/serving.txt
	@$(QUIET_PIP) .serving/bin/pip install -q --no-deps --require-hashes -r locks/triton.txt
	@$(QUIET_PIP) $(ONE_BY_ONE) .serving/bin/pip install -q --no-deps -e infra/serving/edge_models
	@touch $@

# torch is a step of its own: any build of it will do (this version is the one that was tried), and where one is
# installed already, as for a certain GPU, it stays. The editable packages hold paths of this folder only.
MODELS_TORCH ?= torch==2.13.0
.models/.made: .venv/.python locks/models.txt locks/imagebind.txt locks/triton.txt pyproject.toml \
		infra/serving/edge_models/pyproject.toml infra/serving/full_models/pyproject.toml
	@echo "installing the full profile's models into .models (the first time this takes some minutes)"
	@test -x .models/bin/python || "$(PYTHON)" -m venv .models
	@.models/bin/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null || \
		$(QUIET_PIP) .models/bin/pip install -q $(MODELS_TORCH)
	@$(QUIET_PIP) .models/bin/pip install -q --no-deps --require-hashes -r locks/models.txt
	@$(QUIET_PIP) .models/bin/pip install -q --no-deps --require-hashes -r locks/imagebind.txt
	@$(QUIET_PIP) .models/bin/pip install -q --no-deps --require-hashes -r locks/triton.txt
	@$(QUIET_PIP) $(ONE_BY_ONE) .models/bin/pip install -q --no-deps -e infra/serving/edge_models -e infra/serving/full_models -e .
	@touch $@

clean:
	rm -rf .venv .serving .models build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
