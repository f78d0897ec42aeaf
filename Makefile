# Everything a person types. Each target sets up what it needs.
PYTHON ?= python3
PART ?= 1/1
ONLY ?=
MINUTES ?= 30
WORKERS ?= 2
BIN := .venv/bin

.PHONY: help install run results bench faults bad-input soak mutants test coverage check
help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/  /'

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

install: .venv/.installed  ## the project and its test tools in .venv

run: install     ## train the default (real 135M model, ChainSum) into runs/main, compare with the controls
	$(BIN)/dlr run --assistant small-gpt --reward dual --out runs/main --overwrite

results: install ## train the published sweeps (PART=i/n: that part of them), rewrite docs/results.md
	$(BIN)/python benchmarks/results.py run --part $(PART)

bench: install   ## speed, memory and learning against TRL, Transformers and SB3 (ONLY="start_up": some of them)
	$(BIN)/python benchmarks/bench.py $(ONLY)

bad-input: install  ## thousands of generated bad inputs: no traceback, hang, or file outside (docs/security.md)
	$(BIN)/python benchmarks/bad_input.py

soak: install    ## a run of MINUTES and ten thousand episodes: memory, files, threads, processes (docs/security.md)
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

faults: install  ## kill, tear, starve and lie to runs, rewrite docs/reliability.md (REAL=--real: the real model too)
	$(BIN)/python benchmarks/faults.py $(REAL)

mutants: install  ## change the formulas one place at a time: do their tests fail? (docs/reliability.md; ONLY=scorers: one area)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py $(addprefix --only ,$(ONLY))

test: check      ## lint, types and every test (the real model included), WORKERS files at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

coverage: install  ## every test, and the lines of the four packages that they run; fails below 90 %
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    --cov=dlr_core --cov=dlr_plugins --cov=dlr_envs --cov=dlr_cli

check: install   ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
