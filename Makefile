# One command each. VENV is where the packages are installed; PYTHON=python3.12 chooses the interpreter.
VENV ?= .venv
export VENV PYTHON
BIN = $(abspath $(VENV))/bin
# Two for each processor: most of a test's time is spent waiting, for processes and for time limits.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 2 )))

.PHONY: help run test lint types docs site bench bench-docs prove-durability prove-budget prove-image build clean

help: ## show the commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

run: ## set everything up and run the example: a real loop in a scratch repository
	@scripts/setup
	@RALPH=$(BIN)/ralph examples/first-run/run.sh

test: ## run all tests
	@scripts/setup dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: ## check style and format
	@scripts/setup dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: ## check types
	@scripts/setup dev
	$(BIN)/mypy

docs: ## generate the reference pages, and the golden file of the contract
	@scripts/setup dev
	$(BIN)/python scripts/gen_docs.py
	$(BIN)/python scripts/update_contract.py

site: ## build the documentation site into site/, with warnings as errors
	@scripts/setup dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: ## measure Ralph beside a loop in bash and ralph-orchestrator, and show one table (ARGS='--only loop' is quick)
	@scripts/setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fast]'
	$(BIN)/python benchmarks $(ARGS)

bench-docs: ## the same, and put the tables into the README and docs/benchmarks.md
	@scripts/setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fast]'
	$(BIN)/python benchmarks --write

prove-durability: ## kill a run at every write and at 1,000 random instants, resume it, and count what was lost (ARGS='--points 50 --random 50' is quick)
	@scripts/setup dev
	$(BIN)/python tests/proofs/durability.py $(ARGS)

prove-budget: ## show that money is bounded: 1,000 random budgets, and the genuine Claude Code (RALPH_TEST_CLAUDE) if it is there
	@scripts/setup dev
	$(BIN)/python tests/proofs/budget.py $(ARGS)

prove-image: ## build the container image with buildah, and try it: without a daemon or a registry, if need be
	@scripts/setup dev
	$(BIN)/python tests/proofs/image.py $(ARGS)

build: ## build the wheels and source distributions of all packages into dist/, and check them
	@scripts/setup dev
	rm -rf dist
	scripts/build

clean: ## remove what the other commands have made
	rm -rf .venv .tools build dist site .mypy_cache .pytest_cache .ruff_cache
