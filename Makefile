# Thin names for real commands. Everything is installed into .venv, whose commands come first on PATH.
SHELL := /bin/bash
PYTHON ?= python3
# The first column of constraints.txt pins torch; TORCH_INDEX may name another index of torch wheels (README).
PIP = .venv/bin/pip install --disable-pip-version-check --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# LOCKED=1: everything but torch and the libraries of its build by the hashes of lock.txt
HASHED = .venv/bin/pip install --disable-pip-version-check --no-deps

.PHONY: install install-dev chromium slurm demo test test-slurm fuzz soak check audit lock bench bounds clean

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "emsr needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(if $(LOCKED),$(HASHED) --require-hashes --requirement lock.txt && $(PIP) torch && $(HASHED),$(PIP)) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	@touch $@

# Debian's browser, which tests of `emsr view` start; nothing is done where there is one
chromium:
	@command -v chromium google-chrome >/dev/null || \
	  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; }

# Debian's Slurm and MariaDB, which test-slurm starts on the loopback, and no daemon now
slurm:
	$(PYTHON) tests/slurm_cluster.py install

demo: install
	snakemake --cores all
	python benchmarks/alive.py results

# the longest files first, one on each core
LONG = tests/test_workflow.py tests/test_pilot_workflow.py tests/test_segment_workflow.py tests/test_registered_labels.py
test: install-dev
	pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(LONG) $(filter-out $(LONG),$(wildcard tests/test_*.py))

# files, configs and weights to which something happened, so many of each kind, others every time (60 take half a minute of one core)
fuzz: install-dev
	EMSR_FUZZ=$(or $(EXAMPLES),500) pytest --numprocesses 2 tests/test_fuzz.py

# the profiles on a real Slurm, without accounting and with it, and what a cluster does to jobs; as root. `make test` leaves it out
test-slurm: install-dev slurm
	pytest -m slurm $(wildcard tests/test_slurm*.py)

# a fault at every operation of every step, repair in a workflow, and 200 kills at random of a running one; SEED repeats those of a run
soak: install-dev
	EMSR_FAULTS=all EMSR_SOAK=$(or $(KILLS),200) $(if $(SEED),EMSR_SOAK_SEED=$(SEED)) pytest -s tests/test_faults.py tests/test_repair_workflow.py tests/test_soak.py

check: install-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint
	codespell

# asks for known weaknesses of everything that is pinned; without the network, or an answer for one of them, it fails
audit: install-dev
	pip-audit --strict --disable-pip --no-deps --requirement lock.txt --requirement constraints.txt

# the versions of .venv, with the hashes of all their files; a build of torch and what it brings have hashes of their own
lock: install-dev
	$(PIP) uv
	.venv/bin/pip freeze --exclude-editable | grep -v -e '^torch==' -e '^uv==' > .venv/versions.txt
	uv pip compile pyproject.toml --extra dev --constraint constraints.txt --constraint .venv/versions.txt --universal \
	  --python-version 3.11.4 --generate-hashes --no-header --no-annotate --quiet --output-file .venv/lock.txt
	{ echo '# Made by `make lock`: what the tests passed with, but torch (SECURITY.md, Packages)'; \
	  awk '/^[a-z]/ {kept = !/^(torch|triton|nvidia-|cuda-)/} kept' .venv/lock.txt; } > lock.txt

# measures on an otherwise idle machine and writes docs/performance.md; what is measured on trained weights needs a finished
# run: make bench TRAINED="results/tissue results/trainings/tissue/fusion.json"
bench: install
	python benchmarks/performance.py $(if $(TRAINED),--trained $(TRAINED)) $(BENCHMARKS)

# memory of every rule, rerun of 10,000 shards, dry run of a million: a quarter of an hour; fails where a bound is not kept
bounds: install
	python benchmarks/bounds.py all
	python benchmarks/shards.py

# results and .snakemake stay: without Snakemake's notes a changed config would rerun nothing
clean:
	rm -rf .venv
