# Every target does its own set-up: a virtual environment in .venv, renewed when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Generated modules require at least the protobuf runtime that matches their generator, so the generator
# is an old one, in an environment of its own.
PROTO_VENV := .venv-proto
PROTO_STAMP := $(PROTO_VENV)/.installed
PROTO_TOOLS := grpcio-tools==1.72.1 mypy-protobuf==3.6.0 "setuptools<81"

# Seconds for the whole suite; `timeout` is missing on some systems, the suite then has no limit.
TEST_LIMIT ?= 1140
LIMIT := $(if $(shell command -v timeout),timeout $(TEST_LIMIT),)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types layers test-numpy tests proto bench clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(STAMP) ## Create .venv with everything that tests, demo and benchmarks need

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -e '.[dev]'
	$(BIN)/python -m pilum.encoding.kernels
	@touch $@

demo: $(STAMP) ## Write, scan, search and compare on real data (under two minutes)
	$(BIN)/python examples/demo.py

test: lint types layers test-numpy tests ## All checks: style, types, layers, tests with coverage

lint: $(STAMP) ## Style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Rewrite to the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

layers: $(STAMP) ## Which room may import which
	$(BIN)/lint-imports

test-numpy: $(STAMP) ## The encodings with the NumPy twins instead of Numba
	PILUM_NUMBA=0 $(LIMIT) $(BIN)/python -m pytest -q -n 2 tests/encoding

tests: $(STAMP) ## The test suite with coverage
	$(LIMIT) $(BIN)/python -m pytest -q -n 2 --dist worksteal --cov --cov-report=term

proto: $(PROTO_STAMP) ## Generate src/pilum/proto/*_pb2.py and their stubs
	cd src && PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" $(CURDIR)/$(PROTO_VENV)/bin/python -m grpc_tools.protoc \
		-I . --python_out=. --mypy_out=quiet:. pilum/proto/*.proto

$(PROTO_STAMP): Makefile
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PROTO_TOOLS)
	@touch $@

bench: $(STAMP) ## Search over many small fragments, beside the reference
	$(BIN)/python benchmarks/many_fragments.py

clean: ## Remove environments, caches and build products
	rm -rf $(VENV) $(PROTO_VENV) build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
