# make run       start the daemon with five sample workers; Ctrl-C stops all of them
# make check     check style and types, and run the quick tests: under two minutes
# make test      run every test: under twenty minutes
# make lint      check style and types only
# make unit      run the quick tests only: unit, contract and architecture tests
# make coverage  show how much of the framework, the bus, rooms, topics and live channels the quick tests cover
# make bench     measure the speed; ARGS="--rows 0" runs one row
# make setup     create .venv and install KuPool there; the other targets do that by themselves
# make services  install the servers that the tests use; make test does that by itself
# make sdk       install the JavaScript packages of tests/sdk; make test does that by itself
# make clean     remove .venv and all caches
# make help      show this list
#
# TESTS=tests/unit after make test runs a part of the tests.
# ARGS="--log-level debug" after make run gives the daemon flags.
# PYTHON=python3.12 after make chooses the Python that creates .venv.
#
# As root on Debian, make installs with apt-get what is missing: python3-venv for .venv; and
# PostgreSQL, PgBouncer, RabbitMQ, libfaketime, Chromium and npm for make test. It starts no server:
# each run of the tests starts servers of its own. Without root, tests that need them are skipped.

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

.PHONY: run help test check lint unit coverage bench clean setup services sdk

run: $(READY)
	@exec $(BIN)/kupool demo $(ARGS)

# The comment at the top of this file.
help:
	@sed -n -e '/^#/!q' -e 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# More workers than cores: tests with processes and servers wait most of their time. In the order
# of the folders, so that those come first. By default files with few tests come last; among them
# are long ones, for which the other workers then wait.
test: $(READY) services sdk
	$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder $(DIE) $(TESTS)
	$(BIN)/python -m twisted.trial -j 4 --reporter=text --temp-directory=.cache/trial tests.unit tests.contract

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
	@for room in wire net bus rooms topics live; do \
	  echo "kupool/$$room"; \
	  $(BIN)/python -m coverage report --include="kupool/$$room/*" --fail-under=80 || exit 1; \
	done

bench: $(READY)
	$(BIN)/python bench/run.py $(ARGS)

setup: $(READY)

services:
	@sh etc/setup/install-services.sh

sdk: services
	@sh etc/setup/install-sdks.sh

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
