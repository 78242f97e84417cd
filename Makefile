# make install   environment in .venv, versions pinned in envs/constraints.txt
# make demo      simulated study -> whole workflow -> scores, figures, report
# make test      unit, contract and workflow tests
# make benchmarks   demo, then the tables of benchmarks/README.md that need no real data and no GPU (hours; 20 GB of memory for nilearn's side of one)
# make docs      the site of the documentation in docs/_build, without network
# make rulegraph   the picture of the workflow anew (after the demo; needs graphviz)
# make faults    docs/faults.md anew: what boldly says to every kind of bad input
# make lint      ruff, mypy, snakefmt, import-linter, codespell, snakemake --lint
# make test-browser   the report in headless Chromium (installs it on Debian, as root)
# make test-cluster   reduced demo through a local Slurm that it installs and stops again (root, Debian)
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.PHONY: install demo test test-slow test-browser test-cluster benchmarks docs rulegraph faults lint clean

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PIP := $(BIN)/pip --disable-pip-version-check --no-input
CORES ?= 2

install: .venv/installed

# torch goes first: its pin is a CPU build where one is offered, the CUDA build elsewhere. DeepSpeed looks at the
# installed torch while it is built, hence no build isolation.
.venv/installed: pyproject.toml envs/constraints.txt
	echo "Creating .venv (a few minutes)"
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --progress-bar off --upgrade "pip<27" "setuptools>=77,<81" wheel
	echo "1/3 torch"
	$(PIP) install --quiet -c envs/constraints.txt torch==2.13.0 numpy
	echo "2/3 boldly and what it stands on"
	$(PIP) install --quiet -c envs/constraints.txt -e ".[train,trackers,s3,docs,dev]"
	echo "3/3 DeepSpeed"
	DS_BUILD_OPS=0 $(PIP) install --quiet -c envs/constraints.txt --no-build-isolation deepspeed
	$(PIP) check
	touch $@

demo: install
	boldly simulate --output data/demo --workers $(CORES)
	snakemake --cores $(CORES) --quiet rules --scheduler greedy
	snakemake --quiet --report report.html
	echo "Figures:"; ls results/figures/*.png
	echo "Results in short, and the page about the study (all scores: boldly inspect results/evaluate/*_scores.tsv):"
	boldly report
	echo "Snakemake's own report, with rules and run times: report.html"

test: install
	pytest -m "not slow and not cluster and not browser" -n $(CORES) --dist loadfile

test-slow: install
	pytest -m slow

test-browser: install
	command -v chromedriver || { apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver; }
	pytest -m browser

test-cluster: install
	pytest -m cluster -s tests/cluster

benchmarks: demo
	for name in parcellate shards scale train corpus forecasts evaluate decode; do echo "benchmarks/$$name.py"; python benchmarks/$$name.py; done
	python benchmarks/page.py

lint: install
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	lint-imports
	codespell
	snakemake --lint

docs: install
	sphinx-build -b html -W --keep-going -q docs docs/_build
	echo "Open docs/_build/index.html"

rulegraph: demo
	snakemake --rulegraph | python docs/rulegraph.py | dot -Tsvg > workflow/rulegraph.svg

faults: install
	python -m tests.faults.matrix

clean:
	rm -rf .venv build docs/_build docs/_made .snakemake .pytest_cache .mypy_cache .ruff_cache
