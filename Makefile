# Every target sets up .venv by itself the first time; nothing but Python 3.10-3.12 and make is needed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do $$p -c 'import sys; sys.exit(not (3,10) <= sys.version_info[:2] <= (3,12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test bench lint docs clean

demo: .venv/ready
	$(BIN)/tfebr demo demo

test: .venv/ready
	$(BIN)/python -m pytest -n 2

bench: .venv/ready
	$(BIN)/python -m benchmarks

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/ready: setup.cfg constraints.txt
	@test -n "$(PYTHON)" || { echo "tfebr needs Python 3.10, 3.11 or 3.12; none was found. Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up .venv (the first time only; TensorFlow is a large download)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

clean:
	rm -rf .venv build demo *.egg-info
