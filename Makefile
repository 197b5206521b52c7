# What `make` can do here: see `make help`. Needs Python 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV   ?= .venv
NODES  ?= 3
PORT   ?= 9500
SEEDS  ?= 200
INPUTS ?= 200000
MINUTES ?= 10
BIN    := $(VENV)/bin

# Tests run in this many processes; each takes its share in the order of the files, and at the end what another has left.
# There are more than the two cores of a small machine, since half of a test's time is a wait for a lease.
WORKERS ?= 3
# These start servers, which need the cores themselves.
CLUSTER_WORKERS ?= 3
SPREAD  := --numprocesses=$(WORKERS) --dist=worksteal

# Changed when what is installed would change; the code itself is installed in place.
MADE_OF := pyproject.toml src/lockring/_version.py requirements/constraints.txt requirements/uv.txt
# pip installs uv, and uv the rest, in seconds: pip's resolver takes minutes over the gRPC packages.
UV      := $(BIN)/uv
INSTALL := $(UV) pip install --python $(BIN)/python --constraints requirements/constraints.txt
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --no-header pyproject.toml

# Where it is set, every one of the hundreds of processes that tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up test check format unit coverage sim cluster clean

help:
	@echo "make up        start a local cluster: a coordinator and NODES=$(NODES) nodes, ports from PORT=$(PORT)"
	@echo "make test      everything: check, unit tests with coverage, simulation, real processes, a minute of chaos"
	@echo "make check     formatter, linter, strict type checker"
	@echo "make format    let the formatter and the linter put right what they can"
	@echo "make constraints  write the versions that are installed into requirements/constraints.txt; UPGRADE=1 takes the newest"
	@echo "make proto     generate the gRPC stubs from proto/"
	@echo "make sync      generate the blocking client from the asyncio client"
	@echo "make unit      the quick unit tests alone"
	@echo "make sim       the simulation: SEEDS=$(SEEDS) seeds, or one with SEED=…"
	@echo "make mutants   the simulation with each safety rule switched off in turn: it must find a violation"
	@echo "make stories   write the transcripts in tests/sim/stories again, after a change of the protocol"
	@echo "make scale     what NODES=1000 simulated nodes and CLIENTS=100000 send, write and compute"
	@echo "make cluster   the tests with real processes alone"
	@echo "make beside    the tests with real processes that 'make test' runs one at a time, beside those of 'make cluster'"
	@echo "make fuzz      INPUTS=$(INPUTS) hostile inputs against real processes, from a SEED=… or a new one"
	@echo "               TLS=1 for ports with TLS and rights, and for gRPC"
	@echo "make handshakes  10,000 TLS handshakes that never finish"
	@echo "make overload  10,000 waiters, 5,000 connections, clients that never read"
	@echo "make stores    all tests of the stores, with real servers of etcd and PostgreSQL, which it installs"
	@echo "make browser   the tests of the pages in a real browser, which it installs"
	@echo "make monitoring  the alerts of deploy/ in a real Prometheus, which it installs, at servers with every fault that they are for"
	@echo "make upgrade   rolling restarts from the previous version to this one and back, under the load of clients of both"
	@echo "make cleaner   the drills of the empty-folder cleaner: 20,000 folders, a bucket, a scan of 1,000,000 folders"
	@echo "make chaos     faults on a cluster of real processes: MINUTES=$(MINUTES), and SEED=… to do the same ones again;"
	@echo "               STORE=etcd|postgresql|none DURABILITY=process|disk|none, else drawn from the seed"
	@echo "make compiled  the compiled build, in an environment of its own, and the tests of cores, clients and real processes on it"
	@echo "make bench     lockring and its peers measured side by side, into docs/performance.md; QUICK=1 for a first look"
	@echo "make clean     remove the virtual environment and every cache"

up: $(VENV)/.installed
	@$(BIN)/lockring up --nodes $(NODES) --port $(PORT)

test: $(VENV)/.installed-dev
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory check && \
	$(MAKE) --no-print-directory coverage && \
	$(MAKE) --no-print-directory sim-short && \
	$(MAKE) --no-print-directory servers && \
	$(MAKE) --no-print-directory --jobs=4 $(WHOLE) cluster stores-and-more faults-and-pages compiled-short || { echo "make test: FAILED, see above" >&2; exit 1; }; \
	echo "make test: check, unit, coverage, simulation, store, cluster, upgrade, hostile, browser, chaos and compiled tests passed in $$(($$(date +%s) - start)) s"

PYTHON_SOURCES := src tests bench proto client_sync compiled hatch_build.py

check: $(VENV)/.installed-dev
	@mkdir -p build && cp requirements/constraints.txt build/constraints.txt && $(COMPILE) --output-file build/constraints.txt && \
	    diff requirements/constraints.txt build/constraints.txt || { \
	    echo "requirements/constraints.txt does not belong to pyproject.toml; run 'make constraints'" >&2; exit 1; }
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(PYTHON_SOURCES)
	$(BIN)/ruff format $(PYTHON_SOURCES)

.PHONY: constraints
constraints: $(VENV)/.installed-dev
	$(COMPILE) $(if $(UPGRADE),--upgrade) --output-file requirements/constraints.txt

.PHONY: proto
proto: $(VENV)/.installed-dev
	$(BIN)/python proto/generate.py

.PHONY: sync
sync: $(VENV)/.installed-dev
	$(BIN)/python client_sync/generate.py

unit: $(VENV)/.installed-dev
	$(BIN)/pytest tests/unit $(SPREAD) -m "not slow"

coverage: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	$(BIN)/pytest tests/unit $(SPREAD) --cov --cov-report=
	$(BIN)/coverage report --include='src/lockring/ring/*' --fail-under=95
	$(BIN)/coverage report --include='src/lockring/core/*' --fail-under=95

.PHONY: sim-short
sim-short: $(VENV)/.installed-dev
	$(BIN)/pytest tests/sim $(SPREAD)

sim: $(VENV)/.installed-dev
	$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

.PHONY: mutants
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m tests.sim --mutants --each 300

.PHONY: scale
scale: $(VENV)/.installed-dev
	$(BIN)/python -m tests.sim.scale $(if $(filter command line,$(origin NODES)),--nodes $(NODES)) $(if $(CLIENTS),--clients $(CLIENTS))

.PHONY: stories
stories: $(VENV)/.installed-dev
	$(BIN)/python -m tests.sim.stories

cluster: $(VENV)/.installed-dev
	$(BIN)/pytest tests/cluster --numprocesses=$(CLUSTER_WORKERS) --dist=worksteal

# What two jobs print is not mixed: each target's output comes as a whole when it has ended (GNU make 4 and later).
WHOLE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Installed before tests run side by side: a system installs one package at a time. Each kind of tests says what it lacks.
.PHONY: servers
servers: $(VENV)/.installed-dev
	-@$(BIN)/python -m tests.stores.install
	-@$(BIN)/python -m tests.monitoring.install
	-@$(BIN)/python -m tests.browser.install

# One at a time in each: they have servers, clusters or faults of their own, and mostly wait for them.
.PHONY: beside stores-and-more faults-and-pages
beside: stores-and-more faults-and-pages

stores-and-more: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory stores-short
	@$(MAKE) --no-print-directory monitoring
	@$(MAKE) --no-print-directory upgrade-short
	@$(MAKE) --no-print-directory cleaner-short

faults-and-pages: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory chaos-short
	@$(MAKE) --no-print-directory hostile-short
	@$(MAKE) --no-print-directory browser

# One process: each would start servers of its own.
.PHONY: stores-short stores
stores-short: $(VENV)/.installed-dev
	$(BIN)/python -m tests.stores.install
	$(BIN)/pytest tests/stores -m "not slow"

stores: $(VENV)/.installed-dev
	$(BIN)/python -m tests.stores.install
	$(BIN)/pytest tests/stores --capture=no

# A real Prometheus scrapes real servers.
.PHONY: monitoring
monitoring: $(VENV)/.installed-dev
	$(BIN)/python -m tests.monitoring.install
	$(BIN)/pytest tests/monitoring --numprocesses=$(CLUSTER_WORKERS) --dist=worksteal

# The previous version comes from the history: a shallow clone fetches its commit.
.PHONY: upgrade-short upgrade
upgrade-short: $(VENV)/.installed-dev
	$(BIN)/pytest tests/upgrade -m "not slow"

upgrade: $(VENV)/.installed-dev
	$(BIN)/pytest tests/upgrade

.PHONY: hostile-short fuzz overload handshakes
hostile-short: $(VENV)/.installed-dev
	$(BIN)/pytest tests/hostile

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.hostile fuzz --inputs $(INPUTS) $(if $(TLS),--tls) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

overload: $(VENV)/.installed-dev
	$(BIN)/python -m tests.hostile overload

handshakes: $(VENV)/.installed-dev
	$(BIN)/python -m tests.hostile handshakes

.PHONY: cleaner-short cleaner
cleaner-short: $(VENV)/.installed-dev
	$(BIN)/pytest tests/cleaner

cleaner: $(VENV)/.installed-dev
	$(BIN)/python -m tests.cleaner drill
	$(BIN)/python -m tests.cleaner s3
	$(BIN)/python -m tests.cleaner scan

# One process: its tests share a browser and a cluster.
.PHONY: browser
browser: $(VENV)/.installed-dev
	$(BIN)/python -m tests.browser.install
	$(BIN)/pytest tests/browser

.PHONY: chaos-short
chaos-short: $(VENV)/.installed-dev
	-@$(BIN)/python -m tests.stores.install
	$(BIN)/pytest tests/chaos

.PHONY: chaos
chaos: $(VENV)/.installed-dev
	-@$(BIN)/python -m tests.stores.install
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(LINKS),--links $(LINKS)) \
	    $(if $(STORE),--store $(STORE)) $(if $(DURABILITY),--durability $(DURABILITY)) $(if $(JSON),--json $(JSON))

# The compiled build is installed from its wheel, as a user has it, into an environment of its own. Its modules beside the
# sources of a checkout would win over these, however old they are.
COMPILED      := build/compiled
COMPILED_TEST := LOCKRING_BUILD=compiled $(COMPILED)/bin/pytest
COMPILER      := $(BIN)/python -m compiled.compiler

# Tests that a compiled core or client can fail while the interpreted one passes.
COMPILED_UNITS := tests/unit/core tests/unit/net tests/unit/journal tests/unit/client tests/unit/server
# Fewer, for `make test`: without those of the coordinator, whose modules are not compiled.
COMPILED_UNITS_SHORT := tests/unit/core tests/unit/net --ignore=tests/unit/core/coordinator -m "not slow"
COMPILED_CLUSTER := tests/cluster/test_survival.py tests/cluster/test_shared.py tests/cluster/test_watching.py \
    tests/cluster/test_groups.py

.PHONY: compiled compiled-short compiled-cluster-short
compiled: $(VENV)/.installed-dev
	LOCKRING_COMPILE=1 $(MAKE) --no-print-directory built VENV=$(COMPILED) EXTRAS=dev
	$(COMPILED_TEST) $(COMPILED_UNITS) $(SPREAD)
	$(COMPILED_TEST) tests/cluster --numprocesses=$(CLUSTER_WORKERS) --dist=worksteal
	$(COMPILED_TEST) tests/hostile tests/chaos

# Without a training run and without optimizations, which takes a quarter of the time to compile and changes the speed
# alone; `make compiled` has both. Compiled beside other tests, so that those come first.
compiled-short: $(VENV)/.installed-dev
	@if $(COMPILER); then \
	    LOCKRING_COMPILE=quick nice -n 19 $(MAKE) --no-print-directory built VENV=$(COMPILED) EXTRAS=dev && \
	    $(COMPILED_TEST) $(COMPILED_UNITS_SHORT) $(SPREAD) && \
	    $(MAKE) --no-print-directory compiled-cluster-short; \
	else \
	    echo "the compiled build is left out, without a compiler; mypyc looks whether its modules can be compiled" && \
	    $(BIN)/python -m compiled --only-c build/only-c; \
	fi

compiled-cluster-short:
	$(COMPILED_TEST) $(COMPILED_CLUSTER) --numprocesses=$(CLUSTER_WORKERS) --dist=worksteal

# Figures go into the documentation only where all was measured in full.
# Servers and clients of the benchmark run on the fastest Python of this machine, unless PYTHON names another one.
# lockring is installed there as a user has it: from its wheel, once interpreted and once compiled.
FASTEST = $(if $(filter file,$(origin PYTHON)),$$($(PYTHON) bench/interpreter.py),$(PYTHON))
BENCH   := build/bench/interpreted/bin/python -m bench

.PHONY: bench built
bench:
	@python="$(FASTEST)" && \
	$(MAKE) --no-print-directory built VENV=build/bench/interpreted EXTRAS=server,bench PYTHON="$$python" && \
	LOCKRING_COMPILE=1 $(MAKE) --no-print-directory built VENV=build/bench/compiled EXTRAS=server PYTHON="$$python"
	$(BENCH) run --json build/bench.json $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY)) \
	    $(if $(QUICK),--quick,$(if $(filter-out durability,$(ONLY)),,--out docs/performance))

# An environment of another Python is made anew.
built:
	@version='import sys; print(sys.base_prefix, sys.version)'; \
	test "$$($(BIN)/python -c "$$version" 2>/dev/null)" = "$$($(PYTHON) -c "$$version")" || rm -rf $(VENV)
	@$(MAKE) --no-print-directory $(VENV)/.installed-wheel

clean:
	rm -rf $(VENV) examples/node/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment that is missing or does not run (made half, or of a Python that is gone) is made anew.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "lockring needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    echo "Creating $(VENV) …"; $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	    echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; }
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --requirement requirements/uv.txt
endef

$(VENV)/.installed: $(MADE_OF)
	$(make_venv)
	@echo "Installing lockring …"
	@$(INSTALL) --editable '.[server]'
	@touch $@

$(VENV)/.installed-dev: $(MADE_OF)
	$(make_venv)
	@echo "Installing lockring and the tools for its tests …"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-wheel: $(MADE_OF) hatch_build.py $(shell find src compiled -type f -not -name '*.pyc')
	$(make_venv)
	@echo "Installing lockring from its wheel into $(VENV) …"
	@$(INSTALL) --reinstall-package lockring '.[$(EXTRAS)]'
	@touch $@
