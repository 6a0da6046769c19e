# Everything from a fresh clone: `make run` shows a lab, `make test` runs the whole suite.

PYTHON ?= python3
BIN := .venv/bin
LAB ?= configs/manual-keys/lab.yaml
FLAKE_MINUTES ?= 10
# Load (packets/s) of `make profile`, and more for it, such as PROFILE_ARGS="--size 1400 --flow forward --native".
RATE ?= 10000
PROFILE_ARGS ?=
# Twice as many as there are cores: tests with real processes wait most of their time.
WORKERS ?= $(shell expr 2 \* $$(nproc))

# Compiled modules are kept: each process of a lab, and each worker's assertions, would compile all of them anew.
export PYTHONDONTWRITEBYTECODE :=

# The files with such tests: to collect all others in every round would take a good part of the time.
MULTIPROCESS = $(shell grep -rlE "mark(ers)?.*multiprocess" tests --include="test_*.py")

# More for pytest, such as PYTEST_ARGS="--spec-dir=FOLDER" or PYTEST_ARGS="-k supervision".
PYTEST_ARGS ?=

.PHONY: help install run test coverage gates gates-renew bench profile profile-engines flake lint docs wheel clean

help:
	@echo "make run      a lab with its live status (LAB=FILE for another one)"
	@echo "make test     the whole suite"
	@echo "make coverage what the tests run, in a lab's processes too but not in killed ones; build/coverage/html"
	@echo "make gates    what the simulator and IKE do, compared with what was recorded; gates-renew records it anew"
	@echo "make flake    tests with real processes on a crowded machine for $(FLAKE_MINUTES) minutes; build/flake.log"
	@echo "make bench    benchmarks; results in build/bench.json; BASE=COMMIT: this commit beside another and strongSwan"
	@echo "make profile  flame graphs of a lab's processes at a load (LAB=FILE RATE=25000); build/profile/speedscope.json"
	@echo "make profile-engines  where the time of a benchmark of engines goes (BENCHMARKS=line_card); build/profile.txt"
	@echo "make lint     ruff and mypy"
	@echo "make docs     print the pages that are made from the code"
	@echo "make wheel    build the wheel, and boot an example with it in an environment of its own"
	@echo "make install  a virtual environment in .venv, made new when pyproject.toml changes"

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint,ipsec-mb]'
	touch $@

# Without a terminal: one status when the flows run, and the end.
run: install
	@if [ -t 1 ]; then exec $(BIN)/chassis-launch $(LAB); else exec $(BIN)/chassis-launch $(LAB) --once; fi

# No test holds a bound on time: what one needs a quiet machine for is in `make bench`.
test: install
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# Slower by as much as measuring costs: a test that waits for something may need another try.
coverage: install
	@rm -rf build/coverage; mkdir -p build/coverage
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist worksteal --cov --cov-report=term --cov-report=html $(PYTEST_ARGS)

# A commit that moves or renames changes none of it. One that changes behaviour renews it and says why.
gates: install
	$(BIN)/python tests/golden/gates.py

gates-renew: install
	$(BIN)/python tests/golden/gates.py --renew

# BASE=COMMIT compares with that commit, each side in a worktree and an environment of its own, and with strongSwan.
bench: install
	$(BIN)/python -m bench $(if $(BASE),--base $(BASE)) $(BENCH_ARGS) $(BENCHMARKS)

# Needs ptrace: root, or kernel.yama.ptrace_scope=0.
profile: .venv/profiler
	$(BIN)/python -m bench.profile $(LAB) --rate $(RATE) $(PROFILE_ARGS)

.venv/profiler: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[profile]'
	touch $@

# Of this process alone: the benchmarks line_card, asp_work and fuzz drive engines in it.
profile-engines: install
	@mkdir -p build
	-$(BIN)/python -m cProfile -o build/profile.pstats -m bench $(or $(BENCHMARKS),line_card)
	$(BIN)/python -c "import pstats; pstats.Stats('build/profile.pstats', stream=open('build/profile.txt', 'w')).sort_stats('tottime').print_stats(60)"
	@head -40 build/profile.txt

flake: install
	$(BIN)/python -m tests.support.flake --minutes $(FLAKE_MINUTES) $(MULTIPROCESS) -m multiprocess $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	@mkdir -p build
	$(BIN)/python -m tools.bus_page > build/page.md && mv build/page.md docs/bus.md
	$(BIN)/python -m tools.commands_page > build/page.md && mv build/page.md docs/commands.md
	$(BIN)/python -m pytest tests -q --collect-only --write-statements build/statements > build/collected
	$(BIN)/python -m chassis.config.fidelity build/statements > build/page.md && mv build/page.md docs/fidelity.md
	$(BIN)/python -m tools.states_page > build/page.md && mv build/page.md docs/states.md

# A wheel in an environment of its own, outside the clone, boots an example.
wheel: install
	@rm -rf build/wheel; mkdir -p build/wheel; outside=$$(mktemp -d); trap 'rm -rf "$$outside"' EXIT; \
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel . \
	&& $(PYTHON) -m venv "$$outside/venv" \
	&& "$$outside/venv/bin/python" -m pip install --quiet --disable-pip-version-check build/wheel/*.whl \
	&& cd "$$outside" && export CHASSIS_STATE="$$outside/state" && venv/bin/chassis-launch examples manual-keys && venv/bin/chassis-launch manual-keys/lab.yaml --name wheel --once

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
