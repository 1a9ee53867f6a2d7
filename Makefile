# Shortcuts for common tasks. The first one that runs sets up .venv, which all of them use. Outside this folder, they
# change only the cache and Docker's images; `python -m runner clean` lists both.
#
#   TF_MODEL_DIR       folder of the checkpoints, in the layout of the zoo's archive
#   OUT                folder of the results (default: build)
#   RUNNER_BASE_IMAGE  base image of the toolchain image
#   ENGINES            engines that the tests must use: docker, local, or docker,local (default: all engines that can
#                      run on this machine)
#   PYTHONS            Python versions that test-pythons uses
#   PYTEST_OPTIONS     further pytest options for test-integration

PYTHON ?= python3
OUT    ?= $(or $(TFLITE_MODEL_DIR),build)
VENV   := .venv
RUN    := $(VENV)/bin/python -m runner
READY  := $(VENV)/ready
ENGINES ?= available
# Tests that run the toolchain often wait for processes, so three files of tests run at a time on two cores. The tests
# of one file share their conversions, so they run in one process (loadfile).
THREE_AT_ONCE := -n 3 --dist loadfile
# The oldest and the newest of the Pythons that pyproject.toml names.
PYTHONS ?= $(shell sed -nE 's/.*Python :: (3\.[0-9]+)",/\1/p' pyproject.toml | sed -n '1p;$$p')

.DEFAULT_GOAL := help
.PHONY: help fp32 uint8 build-all demo image package test test-unit test-pythons test-integration test-all check lint bench update-pins clean venv

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

venv: $(READY) ## set up .venv from requirements.lock

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "error: $(PYTHON) is older than Python 3.10; use make PYTHON=/path/to/a/newer/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

fp32 uint8 build-all: $(READY) ## convert: mobiledet.tflite, mobiledet_qat.tflite, or both
	$(RUN) $@ --out "$(OUT)"

demo: $(READY) ## convert a stand-in checkpoint: all steps, without a download
	$(RUN) demo --out "$(OUT)"

image: $(READY) ## build the toolchain and print its id
	$(RUN) image

package: $(READY) ## build the wheel and the sdist into dist
	$(VENV)/bin/uv build --quiet --out-dir dist

test: test-unit test-integration ## run the tests; the last lines list those that this machine could not run

test-unit: $(READY) ## run the tests that need no toolchain
	$(VENV)/bin/python -m pytest --engines=none -n auto tests/unit

test-pythons: $(READY) ## run the unit tests and a conversion with the oldest and the newest supported Python
	.ci/test-pythons $(PYTHONS)

test-integration: $(READY) ## run the tests that need the toolchain; ENGINES=docker selects an engine
	$(VENV)/bin/python -m pytest --engines=$(ENGINES) $(THREE_AT_ONCE) $(PYTEST_OPTIONS) tests/integration

test-all: test-unit $(READY) ## run all tests, including those too slow for CI
	$(VENV)/bin/python -m pytest --engines=$(ENGINES) --slow $(THREE_AT_ONCE) tests/integration

check: lint test-unit ## lint, and run the tests that need no toolchain; do this before every commit

lint: $(READY) ## check style, types, layers, shell scripts, workflows and installed packages
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/shellcheck .ci/* docs/*.sh docker/bin/*.sh toolchains/*/*.sh
	$(VENV)/bin/actionlint -shellcheck $(VENV)/bin/shellcheck .github/workflows/*.yml
	$(VENV)/bin/uv pip check --python $(VENV)

bench: $(READY) ## compare the speed with the commands by hand; writes bench/RESULTS.md
	$(VENV)/bin/python bench/bench.py

update-pins: $(READY) ## resolve all pins anew and rewrite the lock files
	$(VENV)/bin/python tools/update_pins.py

clean: $(READY) ## list what the program made outside this folder, and ask before removing it
	$(RUN) clean
