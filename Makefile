# Everything that happens here happens inside this folder: .venv, .dagster_home, data.

# Read when .venv is made: make clean first to change it.
PYTHON ?= python3
UV ?= uv

BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo dev test test-slow test-spark test-versions lint format bench soak lock clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'

# A package that is released as source alone (pyspark-client) is built by the setuptools that is pinned, which so comes
# first. The stamp is written last and says what was installed where, so that an installation that was cut short, a new
# lock file, another Python behind .venv and a folder that was moved all lead to a new one, and nothing else does.
install: ## make .venv with the pinned packages and this project (PYTHON=... picks the Python)
	@files="$$(cat pyproject.toml requirements.lock | cksum)"; \
	stamp() { echo "$$files, $$($(BIN)/python -V 2>&1), $$PWD"; }; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$(stamp)" ]; then exit 0; fi; \
	set -e; \
	fail() { echo "make install: $$1" >&2; exit 1; }; \
	command -v "$(PYTHON)" >/dev/null || fail "no $(PYTHON) here: sudo apt install python3 python3-venv, or name one: make install PYTHON=/path/to/python3"; \
	"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || \
		fail "Python 3.11 to 3.14 is needed and $(PYTHON) is $$("$(PYTHON)" -V 2>&1): name another with make install PYTHON=/path/to/python3"; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || fail "$(PYTHON) cannot make virtual environments: sudo apt install python3-venv"; \
	echo "Making .venv with $$("$(PYTHON)" -V)"; \
	rm -f $(STAMP); \
	"$(PYTHON)" -m venv --clear .venv; \
	echo "Installing the pinned packages (a minute or two)"; \
	pip="$(BIN)/python -I -m pip --disable-pip-version-check"; \
	sed -n '/^setuptools==/,/^ *#/p' requirements.lock > .venv/setuptools.txt; \
	$$pip install -qq --require-hashes --no-deps -r .venv/setuptools.txt; \
	$$pip install -qq --require-hashes --no-deps --no-build-isolation -r requirements.lock; \
	$$pip install -qq --no-build-isolation --no-deps -e .; \
	$$pip check > .venv/check.txt 2>&1 || fail "requirements.lock does not fit pyproject.toml (make lock): $$(cat .venv/check.txt)"; \
	stamp > $(STAMP); \
	echo "Installed in .venv"

demo: install ## ten days of the simulated account, from events to rates, in a minute
	@$(BIN)/np6-assets demo

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
	exec $(BIN)/dg dev

test: install ## the test suite, in some minutes; needs no network
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: install ## the tests that take longest: daemons, a browser, the documentation's commands, every combination
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow

test-versions: install ## a wheel in new environments, with the oldest and the newest of what it needs (needs uv and PyPI)
	@$(BIN)/python -m np6_assets_tests.versions --uv "$(UV)" $(NAMES)

# Half a gigabyte, for the jars in it: installed apart, and by nothing else.
SPARK_LOCK := np6_assets_tests/spark.lock
SPARK_STAMP := .venv-spark/.installed
test-spark: install ## the tests of rates on a Spark Connect server, on Spark itself (needs Java 17 or later)
	@set -e; \
	command -v java >/dev/null || { echo "make test-spark: no java here: sudo apt install default-jre-headless" >&2; exit 1; }; \
	stamp="$$(cksum < $(SPARK_LOCK)), $$($(BIN)/python -V), $$PWD"; \
	if [ "$$(cat $(SPARK_STAMP) 2>/dev/null)" != "$$stamp" ]; then \
		echo "Installing Spark in .venv-spark (a minute or two)"; \
		rm -f $(SPARK_STAMP); \
		$(BIN)/python -m venv --clear .venv-spark; \
		pip=".venv-spark/bin/python -I -m pip --disable-pip-version-check"; \
		sed -n '/^setuptools==/,/^ *#/p' $(SPARK_LOCK) > .venv-spark/setuptools.txt; \
		$$pip install -qq --require-hashes --no-deps -r .venv-spark/setuptools.txt; \
		$$pip install -qq --require-hashes --no-deps --no-build-isolation -r $(SPARK_LOCK); \
		echo "$$stamp" > $(SPARK_STAMP); \
	fi; \
	NP6_TESTS_SPARK_HOME="$$(echo "$$PWD"/.venv-spark/lib/python*/site-packages/pyspark)" \
		$(BIN)/python -m pytest np6_assets_tests/rates/test_spark.py

lint: install ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict np6_assets

format: install ## let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# What the project is measured against is installed apart, and by nothing else.
BENCH_STAMP := .venv-bench/.installed
bench: install ## speed and memory next to other tools, in some minutes (see benchmarks/README.md)
	@set -e; \
	stamp="$$(cksum < benchmarks/requirements.lock), $$($(BIN)/python -V), $$PWD"; \
	if [ "$$(cat $(BENCH_STAMP) 2>/dev/null)" != "$$stamp" ]; then \
		echo "Installing what to compare with in .venv-bench"; \
		rm -f $(BENCH_STAMP); \
		$(BIN)/python -m venv --clear .venv-bench; \
		.venv-bench/bin/python -I -m pip --disable-pip-version-check install -qq \
			--require-hashes --no-deps -r benchmarks/requirements.lock; \
		echo "$$stamp" > $(BENCH_STAMP); \
	fi; \
	exec $(BIN)/python -m benchmarks $(if $(SIZES),--sizes $(SIZES)) $(if $(SENDS),--sends $(SENDS)) \
		$(if $(DAYS),--days $(DAYS)) $(if $(REPEATS),--repeats $(REPEATS)) $(if $(PARTS),--parts "$(PARTS)") \
		$(if $(GIB),--gib $(GIB)) $(if $(SHAPES),--shapes "$(SHAPES)") $(if $(OUT),--out $(OUT))

soak: install ## whole rounds under faults, kills and a full disk, in some minutes (see soak/README.md)
	@exec $(BIN)/python -m soak $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(OUT),--out $(OUT))

# Pins that still fit are kept; remove the lock files first to take the newest of everything.
lock: ## write requirements.lock, and those of the benchmarks and of Spark, from pyproject.toml (needs uv)
	@command -v "$(UV)" >/dev/null || { echo "make lock: no uv here: install it, or name it: make lock UV=/path/to/uv" >&2; exit 1; }
	@"$(UV)" pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--quiet --output-file requirements.lock
	@"$(UV)" pip compile --group pyproject.toml:bench --constraint requirements.lock --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet --output-file benchmarks/requirements.lock
	@"$(UV)" pip compile --group pyproject.toml:spark-server --constraint requirements.lock --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet --output-file $(SPARK_LOCK)

clean: ## remove .venv, .venv-bench, .venv-spark, .bench, .soak, .versions and caches (data and .dagster_home stay)
	@rm -rf .venv .venv-bench .venv-spark .bench .soak .versions .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find np6_assets np6_assets_tests benchmarks soak -name __pycache__ -type d -prune -exec rm -rf {} +
