# `make train` and `make test` are the whole set-up: each creates .venv and installs when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := .venv-docs

.PHONY: train test lint docs studies clean

train: $(INSTALLED)
	$(BIN)/interaction-train fit --config configs/digits_plain.yaml
	$(BIN)/interaction-train fit --config configs/digits_dropout.yaml
	$(BIN)/interaction-train fit --config configs/digits.yaml

test: lint $(DOCS)/.installed
	$(BIN)/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

studies: $(INSTALLED)
	$(BIN)/python studies/run_all.py --scale $(or $(SCALE),quick) --jobs $(or $(JOBS),2)

docs: $(DOCS)/.installed
	$(DOCS)/bin/mkdocs build --strict

$(INSTALLED): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $(INSTALLED)

$(DOCS)/.installed: docs/requirements.txt
	test -d $(DOCS) || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --requirement docs/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(DOCS) build dist *.egg-info
