# Everything a contributor runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python

.PHONY: help check test slow lint format types contracts schema status site constraints method

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

check: lint types contracts test  ## what has to pass before a push

test:  ## the fast tests, a few minutes on two cores
	$(PYTHON) -m pytest

slow:  ## reliability: kills, ranks, sharding, full disks
	$(PYTHON) -m pytest -m slow

lint:  ## style, formatting and spelling
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m codespell_lib

format:  ## format, and mend what can be mended
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## the type checker
	$(PYTHON) -m mypy .

contracts:  ## a room imports only from floors below its own
	lint-imports

schema:  ## make configs/schema.json, by which editors complete and check configs
	$(PYTHON) main.py fit --print_schema > configs/schema.json

status:  ## rewrite docs/status.md from what all tests did, fast and slow
	$(PYTHON) -m pytest --status -m ''

site:  ## the pages of docs/ as a site in site/
	$(PYTHON) -m mkdocs build --strict

method:  ## the files that a new method begins with: make method NAME=my_method
	$(PYTHON) -m cli.new_method $(NAME)

constraints:  ## rewrite constraints.txt from this environment, after the tests passed in it
	head -n 1 constraints.txt > constraints.new
	$(PYTHON) -m pip freeze --exclude-editable | grep -v -E '^(nvidia-|triton|cuda-)' | sed -E 's/\+[a-z0-9.]+$$//' >> constraints.new
	mv constraints.new constraints.txt
