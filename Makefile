# make run    start the daemon with a few sample workers; Ctrl-C ends all of it
# make test   every test, under twenty minutes
# make check  style, types, architecture and unit tests, under two minutes
# make coverage  how much of the framework, the bus and rooms those unit tests cover
# All of them set up what they need in .venv first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TESTS  ?= tests

# A worker that dies fails the run at once, with the name of its test. Another in its place
# would run the same test again, and die of it.
DIE    := --max-worker-restart=0

# Tests start hundreds of processes of ours. Where Python may not keep what it compiled, half of
# the processor time of each of them goes into compiling KuPool again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check lint unit trial coverage bench clean setup services

run: $(READY)
	@exec $(BIN)/kupool demo $(ARGS)

# In the order of the folders, so that those that start processes come first. By default files
# with few tests come last; among them are long ones, for which the other workers then wait.
test: $(READY) services
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(DIE) $(TESTS)
	$(BIN)/python -m twisted.trial -j 2 --reporter=text --temp-directory=.cache/trial tests.unit tests.contract

check: lint unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(DIE) tests/unit tests/contract tests/test_architecture.py

# Fails where fewer than 80 of 100 lines of one of these packages are covered.
coverage: $(READY) services
	@mkdir -p .cache
	$(BIN)/python -m coverage run -m pytest tests/unit tests/contract
	@for room in wire net bus rooms; do \
	  echo "kupool/$$room"; \
	  $(BIN)/python -m coverage report --include="kupool/$$room/*" --fail-under=80 || exit 1; \
	done

bench: $(READY)
	$(BIN)/python bench/run.py $(ARGS)

setup: $(READY)

# As root on Debian, PostgreSQL, RabbitMQ, libfaketime and Chromium are installed for the tests
# where they are missing.
services:
	@sh etc/setup/install-services.sh

# As root on a machine without it, the module venv is installed first.
$(READY): setup.py setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "KuPool needs Python 3.11 or newer: make PYTHON=python3.x" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || sh etc/setup/install-venv.sh
	@echo "Setting up $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[test,dev,tls]'
	@touch $@

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
