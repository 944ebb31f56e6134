# `make train` and `make test` are the whole set-up: each creates .venv and installs when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: train test lint docs studies clean

train: $(INSTALLED)
	$(BIN)/interaction-train fit --config configs/digits.yaml

test: lint
	$(BIN)/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

studies: $(INSTALLED)
	$(BIN)/python studies/run_all.py --scale $(or $(SCALE),quick) --jobs $(or $(JOBS),2)

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

$(INSTALLED): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) build dist *.egg-info
