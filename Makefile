# Everything runs in .venv, which `make` creates when it is missing: nothing is needed but Python >= 3.11.
# Another interpreter: make PYTHON=/path/to/python3.12 install

SHELL := /bin/sh
PY := .venv/bin/python
STAMP := .venv/.installed
PYTHON ?=
# make install TORCH=keep: torch and torchvision of the environment that is active stay; .venv then stands on it.
KEPT := .venv/.torch-kept
TORCH ?= $(if $(wildcard $(KEPT)),keep)
LOCK := requirements.lock
$(if $(filter-out keep,$(TORCH)),$(error TORCH=$(TORCH): only TORCH=keep is known))
# What a user's own settings would put in place of .venv's packages, or beside them.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_CONSTRAINT PYTHONPATH PYTHONHOME
# What setuptools leaves in the tree; deleted modules would live on in it.
LITTER := build t2i_credit.egg-info

# The stamp holds the folder that the editable install points to: a moved or copied tree is installed again.
MOVED := $(shell [ "$$(cat $(STAMP) 2>/dev/null)" = "$$(pwd -P)" ] || echo FORCE)
# so is one that is to stand on another torch than it does
MOVED += $(if $(TORCH),$(if $(wildcard $(KEPT)),,FORCE),$(if $(wildcard $(KEPT)),FORCE))

# and one that is to run another Python
PYTHON_IS := -c 'import os, sys; print(sys.version, os.path.realpath(sys.base_prefix))'
OTHER := $(if $(PYTHON),$(shell [ "$$("$(PYTHON)" $(PYTHON_IS) 2>&1)" = "$$($(PY) $(PYTHON_IS) 2>/dev/null)" ] || echo FORCE))
MOVED += $(OTHER)

# A candidate counts only if it runs, is new enough and can make a virtual environment (shims and bare Debian cannot).
FIND_PYTHON = for p in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	"$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit 0; }; done; \
	echo "error: $(if $(PYTHON),PYTHON=$(PYTHON): not a Python >= 3.11 with venv,no Python >= 3.11 with venv found; install one (Debian, Ubuntu: python3 and python3-venv) or name one: make PYTHON=...)" >&2; exit 1

.PHONY: help install demo test newest oldest lock check wheel clean FORCE
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1 - /p' Makefile

install: $(STAMP) ## the package (editable) and the developers' tools in the versions of requirements.lock, in .venv

demo: $(STAMP) ## the whole thing on the embedded generator: no GPU, no downloads after the install
	@$(PY) -m t2i_credit.cli demo

test: $(STAMP) ## the tests: no GPU, no network
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --durations 40 --durations-min 5

# What users will meet, or may have already: the tests in an environment of its own, with the newest or the oldest versions
# that pyproject.toml allows.
define TEST_WITH
@echo "==> the $(1) versions that pyproject.toml allows, in .venv-$(1)"
@$(PY) -m uv venv --quiet --allow-existing --python $(PY) .venv-$(1)
@$(PY) -m uv pip compile --quiet --upgrade --no-header --no-annotate --strip-extras --python $(PY) --resolution $(2) \
	--extra dev --extra text pyproject.toml --output-file .venv-$(1)/requirements.txt > /dev/null
@$(PY) -m uv pip sync --quiet --python .venv-$(1)/bin/python .venv-$(1)/requirements.txt
@$(PY) -m uv pip install --quiet --no-deps --no-build-isolation --python .venv-$(1)/bin/python --editable .
@grep -E '^(torch|torchvision|transformers|diffusers|accelerate|peft|trl|gradio)==' .venv-$(1)/requirements.txt
OMP_NUM_THREADS=1 .venv-$(1)/bin/python -m pytest -n 2 --dist loadfile --newest $(ARGS)
endef

newest: $(STAMP) ## the tests with the newest versions that are allowed, deprecations in calls of ours as failures, the wheel
	$(call TEST_WITH,newest,highest)

oldest: $(STAMP) ## the same with the oldest
	$(call TEST_WITH,oldest,lowest-direct)

# For every Python and system that is supported at once; no address and no hash of an index.
lock: $(STAMP) ## renews requirements.lock: the newest versions that pyproject.toml allows
	$(PY) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --strip-extras \
		--no-emit-index-url --custom-compile-command "make lock" --extra dev --extra text pyproject.toml \
		--output-file $(LOCK) > /dev/null

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
	rm -rf .venv .venv-newest .venv-oldest dist $(LITTER) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate of TORCH=keep is the environment that is active. What it holds is seen from .venv, which cannot change it; or it
# is .venv itself.
define KEEP_TORCH
python=$${PYTHON:-$$(command -v python3 || command -v python || echo python3)}; \
"$$python" .ci/keep_torch.py || exit 1; \
[ "$$("$$python" -c 'import sys; print(sys.prefix)')" = "$$(pwd -P)/.venv" ] || { \
	echo "==> creating .venv on top of $$python, whose torch stays"; "$$python" -m venv --clear .venv && \
	"$$python" -c 'import sys; print(*[p for p in sys.path if p.endswith("-packages")], sep="\n")' \
		> "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/underneath.pth"; } && touch $(KEPT);
endef
USABLE = $(if $(OTHER),false,true) && $(PY) -c 'import sys, pip._internal; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	$(if $(TORCH),[ -e $(KEPT) ] && $(PY) .ci/keep_torch.py 2>/dev/null,[ ! -e $(KEPT) ])

# setuptools first, so that a second install builds without asking the network for it.
$(STAMP): pyproject.toml $(LOCK) $(MOVED)
	@{ $(USABLE); } || { $(if $(TORCH),$(KEEP_TORCH),python=$$($(FIND_PYTHON)) || exit 1; \
		echo "==> creating .venv with $$python$$([ ! -e .venv ] || echo ', in place of the one that is there')"; "$$python" -m venv --clear .venv;) }
	@echo "==> installing into .venv: the first time about 7 GB of packages (torch is most of it), 2 to 15 minutes; after that, nothing"
	@$(if $(TORCH),$(PY) .ci/keep_torch.py,cat) $(LOCK) > .venv/constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint .venv/constraints.txt "setuptools>=77"
	@$(PY) -m pip install --disable-pip-version-check --constraint .venv/constraints.txt --no-build-isolation --editable ".[dev,text]"
	@pwd -P > $(STAMP)
	@echo "==> installed"
