# Everything runs in .venv, which `make` creates when it is missing: nothing is needed but Python >= 3.11.
# Another interpreter: make PYTHON=/path/to/python3.12 install

SHELL := /bin/sh
PY := .venv/bin/python
STAMP := .venv/.installed
PYTHON ?=
# What setuptools leaves in the tree; deleted modules would live on in it.
LITTER := build t2i_credit.egg-info

# The stamp holds the folder that the editable install points to: a moved or copied tree is installed again.
MOVED := $(shell [ "$$(cat $(STAMP) 2>/dev/null)" = "$$(pwd -P)" ] || echo FORCE)

# A candidate counts only if it runs, is new enough and can make a virtual environment (shims and bare Debian cannot).
FIND_PYTHON = for p in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	"$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit 0; }; done; \
	echo "error: no Python >= 3.11 with venv found; install one (Debian, Ubuntu: python3 and python3-venv) or name one: make PYTHON=..." >&2; exit 1

.PHONY: help install demo test check wheel clean FORCE
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1 - /p' Makefile

install: $(STAMP) ## the package (editable) and the developers' tools, in .venv

demo: $(STAMP) ## the whole thing on the embedded generator: no GPU, no downloads after the install
	@.venv/bin/t2i-credit demo

test: $(STAMP) ## the tests: no GPU, no network
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadgroup

# Type checkers do not follow the hook of an editable install, so they see a normal one.
check: $(STAMP) ## lint, format, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@set -e; root=$$(pwd -P); tmp=$$(mktemp -d); rm -rf $(LITTER); \
	trap 'cd "$$root"; rm -rf "$$tmp" $(LITTER)' EXIT; \
	$(PY) -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$$tmp" .; \
	cd "$$tmp"; echo "mypy -p t2i_credit"; \
	"$$root/$(PY)" -m mypy --config-file "$$root/pyproject.toml" --cache-dir "$$root/.mypy_cache" \
		--python-executable "$$root/$(PY)" -p t2i_credit

wheel: $(STAMP) ## dist/*.whl
	rm -rf dist $(LITTER)
	$(PY) -m build --wheel --no-isolation
	rm -rf $(LITTER)

clean: ## removes what the targets above made, .venv included; runs/ stays
	rm -rf .venv dist $(LITTER) .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# setuptools first, so that a second install builds without asking the network for it.
$(STAMP): pyproject.toml $(MOVED)
	@$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		python=$$($(FIND_PYTHON)) || exit 1; \
		echo "==> creating .venv with $$python"; "$$python" -m venv --clear .venv; }
	@echo "==> installing into .venv: the first time about 6 GB from the package index (torch is most of it), 2 to 15 minutes; after that, nothing"
	@$(PY) -m pip install --quiet --disable-pip-version-check "setuptools>=77"
	@$(PY) -m pip install --disable-pip-version-check --no-build-isolation --editable ".[dev,text]"
	@pwd -P > $(STAMP)
	@echo "==> installed"
