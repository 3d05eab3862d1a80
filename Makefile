# Thin aliases. `make` alone lists them.
.DEFAULT_GOAL := help
UV ?= uv
PYTHON ?= python3
LOCK = $(UV) pip compile pyproject.toml --extra local --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet

.PHONY: help up test check lock lock-upgrade clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## start everything on this machine
	@$(PYTHON) run.py up

test: ## run the tests
	@$(PYTHON) run.py test

check: ## what CI runs: lint, types, import rules, tests
	@.ci/run

lock: ## pin what pyproject.toml asks for, keeping the versions that are pinned already (needs uv)
	@$(LOCK) -o requirements.txt
	@$(LOCK) --group dev -c requirements.txt -o requirements-dev.txt

lock-upgrade: ## pin the newest versions that pyproject.toml allows (needs uv)
	@$(LOCK) --upgrade -o requirements.txt
	@$(LOCK) --upgrade --group dev -c requirements.txt -o requirements-dev.txt

clean: ## remove caches; .venv and data stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
