# Two commands: `make quickstart` and `make test`. Both set up .venv first; all targets are safe to repeat.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0

.PHONY: help quickstart test test-slow test-vllm test-browser lint clean

help:
	@echo "make quickstart   train a tiny model to use Python, with a report at the end (SEED=0)"
	@echo "make test         run the tests (minutes, no GPU, no network)"
	@echo "make test-slow    run the tests that take longer or need real models (RETOOL_TEST_MODELS=folder)"
	@echo "make test-vllm    test sampling by vLLM (RETOOL_VLLM_PYTHON=/path/to/venv/bin/python, one with vLLM)"
	@echo "make test-browser open the report in headless Chromium and click through it (installs what is missing)"
	@echo "make lint         check style"
	@echo "make clean        remove the environment"

quickstart: $(VENV)/.installed
	@echo "==> retool quickstart --seed $(SEED)"
	@$(BIN)/retool quickstart --seed $(SEED)

test: $(VENV)/.installed-dev
	@echo "==> running the tests"
	@$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev
	@echo "==> running the slow tests"
	@$(BIN)/python -m pytest -m slow

test-vllm: $(VENV)/.installed-dev
	@echo "==> testing against vLLM"
	@$(BIN)/python -m pytest -m slow -rs tests/sampling/test_vllm_server.py tests/stages/test_ray_vllm.py

# The browser is the system's own; Debian's is installed where there is none. RETOOL_CHROMIUM names another.
CHROMIUM := $(or $(RETOOL_CHROMIUM),$(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name)))))
test-browser: $(VENV)/.installed-dev
	@test -n "$(CHROMIUM)" || { echo "==> installing Debian's chromium (apt-get, as root)"; \
		apt-get install --yes --no-install-recommends chromium fonts-liberation; }
	@$(BIN)/python -c 'import playwright' 2>/dev/null \
		|| { echo "==> installing playwright"; $(BIN)/python -m pip install --quiet playwright; }
	@echo "==> opening reports in a browser"
	@$(BIN)/python -m pytest -m slow -rs tests/reporting/test_report_in_browser.py

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(VENV)/bin/python:
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

# A torch that is there already stays; without one, a release that the project is tested with is installed.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@$(BIN)/python -c 'import torch' 2>/dev/null \
		|| { echo "==> installing torch"; $(BIN)/python -m pip install --quiet 'torch>=2.11,<2.14'; }
	@echo "==> installing retool"
	@$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "==> installing what the tests need"
	@$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV)
