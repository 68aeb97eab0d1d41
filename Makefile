# Everything that happens here happens inside this folder: .venv, .dagster_home, data.

# Read when .venv is made: make clean first to change it.
PYTHON ?= python3
PORT ?= 3000

BIN := .venv/bin
STAMP := .venv/.installed

# A pipe ends as its first command does.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install install-all demo dev test test-slow test-spark test-cluster test-versions lint format bench soak lock clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-21s%s\n", $$1, $$2 }'

# The stamp is written last and says what was installed where, so that an installation that was cut short, a new
# lock file, another Python behind .venv and a folder that was moved all lead to a new one, and nothing else does.
stamp = echo "$$(cat pyproject.toml $(1) | cksum), $$($(BIN)/python -V 2>&1), $$PWD"
# A link would let a change in .venv reach the cache.
export UV_LINK_MODE := copy
# uv asks the index that pip was set up to ask when .venv was made.
UV := index="$$(cat .venv/index)"; [ -z "$$index" ] || export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; \
	$(BIN)/uv
# What is really used is compiled on first use: all of it takes longer than a demo.
uv_install = $(UV) pip install --quiet --python $(2) --no-build-isolation --require-hashes --no-deps -r $(1)
# The same, with packages that are released as source alone (pyspark): setuptools, which builds them, comes first.
uv_build = sed -n '/^setuptools==/,/^ *\#/p' $(1) > .venv/setuptools.txt; \
	$(call uv_install,.venv/setuptools.txt,$(2)); $(call uv_install,$(1),$(2))

# Installing pip in .venv takes as long as all else: PYTHON's own installs there, unless it has none, as on Debian.
install: ## make .venv with the pinned packages and this project (PYTHON=... picks the Python)
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$($(call stamp,requirements.lock))" ]; then exit 0; fi; \
	set -e; \
	fail() { echo "make install: $$1" >&2; exit 1; }; \
	command -v "$(PYTHON)" >/dev/null || fail "no $(PYTHON) here: sudo apt install python3 python3-venv, or name one: make install PYTHON=/path/to/python3"; \
	"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || \
		fail "Python 3.11 to 3.14 is needed and $(PYTHON) is $$("$(PYTHON)" -V 2>&1): name another with make install PYTHON=/path/to/python3"; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || fail "$(PYTHON) cannot make virtual environments: sudo apt install python3-venv"; \
	echo "Making .venv with $$("$(PYTHON)" -V)"; \
	rm -f $(STAMP); \
	"$(PYTHON)" -m venv --clear $$("$(PYTHON)" -I -c "import pip; print('--without-pip')" 2>/dev/null) .venv; \
	pip() { if [ -e $(BIN)/pip ]; then $(BIN)/python -I -m pip "$$@"; else "$(PYTHON)" -I -m pip --python $(BIN)/python "$$@"; fi; }; \
	pip config list | sed -n "s/.*[.]index-url='\(.*\)'/\1/p" | tail -n 1 > .venv/index; \
	sed -n '/^uv==/,/^ *#/p' requirements.lock > .venv/uv.txt; \
	pip install -qq --disable-pip-version-check --no-compile --require-hashes --no-deps -r .venv/uv.txt; \
	echo "Installing $$(grep -c '^[a-z]' requirements.lock) pinned packages"; \
	$(call uv_install,requirements.lock,$(BIN)/python); \
	$(BIN)/uv pip install --quiet --offline --python $(BIN)/python --no-build-isolation --no-deps -e .; \
	$(BIN)/uv pip check --quiet --python $(BIN)/python || fail "requirements.lock does not fit pyproject.toml: make lock"; \
	$(call stamp,requirements.lock) > $(STAMP); \
	echo "Installed in .venv"

install-all: install ## and what the files in deploy/, tests and lint need
	@if [ "$$(cat $(STAMP)-all 2>/dev/null)" = "$$($(call stamp,requirements-all.lock))" ]; then exit 0; fi; \
	set -e; \
	echo "Installing what deployments, tests and lint need beside it"; \
	$(call uv_build,requirements-all.lock,$(BIN)/python); \
	$(BIN)/uv pip check --quiet --python $(BIN)/python; \
	echo "Compiling, for users who may not write to .venv"; \
	$(BIN)/python -m compileall -q -j 0 -x '/tests/' .venv/lib np6_assets >/dev/null || true; \
	$(call stamp,requirements-all.lock) > $(STAMP)-all

demo: install ## ten days of the simulated account, from events to rates, in a minute
	@$(BIN)/np6-assets demo

# Dagster's services say much, and warn of dagster.yaml here, though .dagster_home has it: only their errors are shown,
# and the warnings of runs.
# Dagster itself reads .env; it is looked at here only to tell whether there is an account to use.
dev: install ## Dagster's UI, with the simulated account unless NP6_API_KEY or NP6_BASE_URL is set
	@if [ -z "$$DAGSTER_HOME" ]; then \
		mkdir -p .dagster_home; ln -sf ../dagster.yaml .dagster_home/dagster.yaml; \
		export DAGSTER_HOME="$$PWD/.dagster_home"; \
	fi; \
	if [ -z "$$NP6_API_KEY$$NP6_BASE_URL" ] && ! grep -Eqs '^(export )? *NP6_(API_KEY|BASE_URL) *=' .env \
		&& ! ls np6_assets/defs/*/defs.yaml >/dev/null 2>&1; then \
		echo "No NP6_API_KEY: the simulated account it is (sandbox://)"; \
		export NP6_BASE_URL=sandbox://; \
	fi; \
	url=http://127.0.0.1:$(PORT); \
	$(BIN)/python -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2>/dev/null || \
		{ echo "make dev: port $(PORT) is in use; another one: make dev PORT=3001" >&2; exit 1; }; \
	echo "Starting Dagster"; \
	(while kill -0 $$$$; do sleep 0.5; \
		if $(BIN)/python -c "import urllib.request as r; r.urlopen('$$url/server_info')"; then \
			echo "Dagster's UI is on $$url (Ctrl-C ends it; from here on only errors are shown)" >&3; break; fi; \
	done) 3>&1 >/dev/null 2>&1 & \
	exec $(BIN)/dg dev --port $(PORT) --log-level error 2> >(trap "" INT; grep --line-buffered -v ' - DEBUG - \| - INFO - ' >&2)

test: install-all ## the test suite, in some minutes; needs no network
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not cluster"

test-slow: install-all ## the tests that take longest: daemons, a browser, the documentation's commands, every combination
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

test-versions: install-all ## a wheel in new environments, with the oldest and the newest of what it needs (needs PyPI)
	@$(BIN)/python -m np6_assets_tests.versions $(NAMES)

# Half a gigabyte, for the jars in it: installed apart, and by nothing else.
SPARK_LOCK := np6_assets_tests/spark.lock
SPARK_STAMP := .venv-spark/.installed
test-spark: install-all ## the tests of rates on a Spark Connect server, on Spark itself (needs Java 17 or later)
	@set -e; \
	command -v java >/dev/null || { echo "make test-spark: no java here: sudo apt install default-jre-headless" >&2; exit 1; }; \
	stamp="$$(cksum < $(SPARK_LOCK)), $$($(BIN)/python -V), $$PWD"; \
	if [ "$$(cat $(SPARK_STAMP) 2>/dev/null)" != "$$stamp" ]; then \
		echo "Installing Spark in .venv-spark (a minute or two)"; \
		rm -f $(SPARK_STAMP); \
		$(BIN)/python -m venv --clear .venv-spark; \
		$(call uv_build,$(SPARK_LOCK),.venv-spark/bin/python); \
		echo "$$stamp" > $(SPARK_STAMP); \
	fi; \
	NP6_TESTS_SPARK_HOME="$$(echo "$$PWD"/.venv-spark/lib/python*/site-packages/pyspark)" \
		$(BIN)/python -m pytest np6_assets_tests/rates/test_spark.py

# As root on Debian or Ubuntu it installs what is missing; RUNLEVEL keeps apt from starting it.
test-cluster: install-all ## a backfill over two workers while what can break breaks, in some minutes (see docs/deployment.md)
	@set -e; missing=""; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$$missing postgresql"; \
	PATH="$$PATH:/usr/sbin"; command -v pgbouncer >/dev/null || missing="$$missing pgbouncer"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	if [ -n "$$missing" ]; then \
		[ "$$(id -u)" = 0 ] || { echo "make test-cluster: not here: sudo apt install$$missing" >&2; exit 1; }; \
		apt-get update -qq; RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi
	@timeout --signal=INT --kill-after=60 3600 $(BIN)/python -m pytest -m cluster np6_assets_tests/cluster

lint: install-all ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict np6_assets

format: install-all ## let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# What the project is measured against is installed apart, and by nothing else.
BENCH_STAMP := .venv-bench/.installed
bench: install-all ## speed and memory next to other tools, in some minutes (see benchmarks/README.md)
	@set -e; \
	stamp="$$(cksum < benchmarks/requirements.lock), $$($(BIN)/python -V), $$PWD"; \
	if [ "$$(cat $(BENCH_STAMP) 2>/dev/null)" != "$$stamp" ]; then \
		echo "Installing what to compare with in .venv-bench"; \
		rm -f $(BENCH_STAMP); \
		$(BIN)/python -m venv --clear .venv-bench; \
		$(call uv_install,benchmarks/requirements.lock,.venv-bench/bin/python); \
		echo "$$stamp" > $(BENCH_STAMP); \
	fi; \
	exec $(BIN)/python -m benchmarks $(if $(SIZES),--sizes $(SIZES)) $(if $(SENDS),--sends $(SENDS)) \
		$(if $(DAYS),--days $(DAYS)) $(if $(REPEATS),--repeats $(REPEATS)) $(if $(PARTS),--parts "$(PARTS)") \
		$(if $(GIB),--gib $(GIB)) $(if $(SHAPES),--shapes "$(SHAPES)") $(if $(OUT),--out $(OUT))

soak: install-all ## whole rounds under faults, kills and a full disk, in some minutes (see soak/README.md)
	@exec $(BIN)/python -m soak $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(OUT),--out $(OUT))

# Pins that still fit are kept; remove the lock files first to take the newest of everything.
COMPILE = $(UV) pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet
lock: ## write the lock files, also those of the benchmarks and of Spark, from pyproject.toml
	@[ -x $(BIN)/uv ] || { echo "make lock: make install first" >&2; exit 1; }
	@$(COMPILE) pyproject.toml --group build --extra ui --extra report --extra sandbox --output-file requirements.lock
	@$(COMPILE) pyproject.toml --group build --group dev --all-extras --constraint requirements.lock \
		--output-file requirements-all.lock
	@$(COMPILE) --group pyproject.toml:bench --constraint requirements-all.lock --output-file benchmarks/requirements.lock
	@$(COMPILE) --group pyproject.toml:spark-server --constraint requirements-all.lock --output-file $(SPARK_LOCK)

clean: ## remove .venv, .venv-bench, .venv-spark, .bench, .soak, .versions and caches (data and .dagster_home stay)
	@rm -rf .venv .venv-bench .venv-spark .bench .soak .versions .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find np6_assets np6_assets_tests benchmarks soak -name __pycache__ -type d -prune -exec rm -rf {} +
