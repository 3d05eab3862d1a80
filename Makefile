# Thin aliases. `make` alone lists them.
.DEFAULT_GOAL := help
UV ?= uv
PYTHON ?= python3
COMPILE = $(UV) pip compile --universal --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet
LOCK = $(COMPILE) --python-version 3.11
# These run in a Python of their own, which is not that of okane.
STRIPE = okane/local/stripe_simulator
PAYU = tests/conformance/payu-requirements
RECEIVERS = tests/interop/requirements
LOCAL = pyproject.toml --extra local --extra asymmetric
DEVELOPING = $(LOCAL) --extra otel --extra archive --group dev -o requirements-dev.txt
# Everything else is part of what was tested: what run.py installs, and the container image, which has tracing and no
# embedded servers.
LOCK_PARTS = @$(LOCK) $(LOCAL) -c requirements-dev.txt -o requirements.txt && \
	$(LOCK) pyproject.toml --extra otel --extra asymmetric -c requirements-dev.txt -o deploy/requirements.txt && \
	$(LOCK) --group build -c requirements-dev.txt -o deploy/requirements-build.txt && \
	$(COMPILE) --python-version 3.14 $(STRIPE)/requirements.in -o $(STRIPE)/requirements.txt && \
	$(COMPILE) --python-version 3.12 $(PAYU).in -o $(PAYU).txt && \
	$(LOCK) $(RECEIVERS).in -o $(RECEIVERS).txt

.PHONY: help up test quick check lock lock-upgrade clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## start everything on this machine
	@$(PYTHON) run.py up

test: ## run the tests
	@$(PYTHON) run.py test

quick: ## lint, types, import rules and the tests that need no server: under two minutes
	@$(PYTHON) run.py test --quick

check: ## what CI runs: lint, types, import rules, tests
	@.ci/run

lock: ## pin what pyproject.toml asks for, keeping the versions that are pinned already (needs uv)
	@$(LOCK) $(DEVELOPING)
	$(LOCK_PARTS)

lock-upgrade: ## pin the newest versions that pyproject.toml allows (needs uv)
	@$(LOCK) --upgrade $(DEVELOPING)
	$(LOCK_PARTS)

clean: ## remove caches; .venv and data stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
