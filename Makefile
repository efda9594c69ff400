# Two commands on a fresh machine: make demo, make test. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs

# make test-slow adds the load and fault tests.
.PHONY: demo test test-slow test-faults check format docs clean

.venv/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

demo: .venv/installed  ## the main job, end to end, on the embedded default
	$(BIN)/orchestrate extract --traits all --rollouts 3 --run demo --runs-dir $(RUNS)

test: .venv/installed-test  ## lint, types and the default tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -m "not slow and not faults"

test-slow: .venv/installed-test  ## what takes minutes: load, faults with real processes
	$(BIN)/python -m pytest -m "slow or faults"

test-faults: .venv/installed-test  ## break real processes on purpose; writes the tables of docs/reliability.md
	$(BIN)/python -m pytest -m faults tests --junitxml=build/faults.xml; ended=$$?; \
	$(BIN)/python -m tests.faults.table docs/reliability.md build/faults.xml; exit $$ended

check: .venv/installed-test  ## lint and types alone
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: .venv/installed-test
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: .venv/installed  ## the documents as a site: site/index.html
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf .venv build site *.egg-info
