# Thin names for real commands. Everything is installed into .venv, whose commands come first on PATH.
SHELL := /bin/bash
PYTHON ?= python3
# The first column of constraints.txt pins torch; TORCH_INDEX may name another index of torch wheels (README).
PIP = .venv/bin/pip install --disable-pip-version-check --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: install install-dev chromium demo test check bench clean

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "emsr needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@

# Debian's browser, which tests of `emsr view` start; nothing is done where there is one
chromium:
	@command -v chromium google-chrome >/dev/null || \
	  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; }

demo: install
	snakemake --cores all
	python benchmarks/alive.py results

# the longest files first, one on each core
LONG = tests/test_workflow.py tests/test_segment_workflow.py
test: install-dev
	pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(LONG) $(filter-out $(LONG),$(wildcard tests/test_*.py))

check: install-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint
	codespell

# measures on an otherwise idle machine and writes docs/performance.md; what is measured on trained weights needs a finished
# run: make bench TRAINED="results/tissue results/trainings/tissue/fusion.json"
bench: install
	python benchmarks/performance.py $(if $(TRAINED),--trained $(TRAINED)) $(BENCHMARKS)

# results and .snakemake stay: without Snakemake's notes a changed config would rerun nothing
clean:
	rm -rf .venv
