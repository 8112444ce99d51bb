# Two commands set everything up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check clean

quickstart: .venv/installed
	$(BIN)/reidkit train configs/synthetic/quickstart.yaml

test: .venv/installed-dev check
	$(BIN)/pytest -n auto

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

# faiss-cpu; on a machine with a CUDA device install '.[gpu]' by hand instead.
.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu,export,dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
