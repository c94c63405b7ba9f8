# ganforge: every command that a user or a developer needs. `make help` lists them.
#
# Needed beforehand: python3 (3.11 to 3.14), make and a package index. Everything else goes into .venv/.

.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
BUNDLES ?= bundles
OUTPUT ?= demo-output
PICTURE ?= export/assets/portrait.png
HOST ?= 127.0.0.1
PORT ?= 50051

# The first interpreter that really runs and is recent enough; `make PYTHON=/path/to/python3.12 …` names another.
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
ifeq ($(origin PYTHON),undefined)
# Looked for when it is first needed, and once.
PYTHON = $(eval PYTHON := $$(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$$$name" -c '$$(SUITS)' >/dev/null 2>&1 && { echo "$$$$name"; break; }; done))$(PYTHON)
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_PROGRESS_BAR := off
export PIP_NO_INPUT := 1
export PYTHONUNBUFFERED := 1

.PHONY: help env demo bundles serve test quick cpus mutants chaos check format bench figures proto sbom clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.installed  ## the environment in .venv/, with the pinned versions

$(VENV)/.installed: pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "ganforge needs Python 3.11 to 3.14, and none was found here. Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	@"$(PYTHON)" -c '$(SUITS)' || { \
		echo "ganforge needs Python 3.11 to 3.14; $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." >&2; exit 1; }
	@if [ ! -x $(PY) ]; then "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$$("$(PYTHON)" -V) has no venv module. On Debian and Ubuntu it is the package python3-venv." >&2; exit 1; }; \
		echo "Making an environment in $(VENV)/ with $$("$(PYTHON)" -V)"; "$(PYTHON)" -m venv $(VENV); fi
	@echo "Installing what ganforge needs into $(VENV)/ (the first time takes minutes: PyTorch, OpenVINO, TensorRT-RTX)"
	@$(PY) -m pip install -qq -c constraints.txt -e '.[serve,export,bench,dev]'
	@touch $@

demo: bundles  ## build the shipped models, serve them, upscale and paint a photograph, draw samples
	@$(PY) -m server.demo --bundles $(BUNDLES) --picture $(PICTURE) --output $(OUTPUT)

# Bundles of the weights that ship: each is named for its weights, and its family is the name up to the first hyphen.
SHIPPED := esrgan-x4 esrgan-photo style dcgan acgan
WEIGHTS = $(patsubst esrgan-x4,esrgan,$*)

bundles: $(SHIPPED:%=$(BUNDLES)/%/manifest.json)

# A bundle that is there is kept: `make clean` or removing its folder has it built again.
$(BUNDLES)/%/manifest.json: | $(VENV)/.installed
	@$(PY) -m export.build --model $(firstword $(subst -, ,$*)) --weights shipped:$(WEIGHTS) --name $* \
		--fastest --output $(BUNDLES)

serve: bundles  ## serve bundles/ on 127.0.0.1:50051 until Ctrl-C (PORT=… HOST=… BUNDLES=… FLAGS=…)
	@exec $(PY) -m server --bundles $(BUNDLES) --host $(HOST) --port $(PORT) $(FLAGS)

test: $(VENV)/.installed  ## every test that this machine can run
	@$(PY) -m pytest -m "not gpu and not network"

quick: $(VENV)/.installed  ## the tests that take a minute or so
	@$(PY) -m pytest

CPUS := plain avx512-bf16 amx

cpus: $(VENV)/.installed  ## the tests that depend on the CPU's instruction set, as on CPUs of three kinds
	@for cpu in $(CPUS); do echo "as on a CPU of the kind $$cpu"; \
		GANFORGE_IMITATE_CPU=$$cpu $(PY) -m pytest -q -m "cpu and not gpu and not network"; done

mutants: $(VENV)/.installed  ## deliberate faults, each of which a test must notice; half an hour
	@$(PY) -m tests.mutants

chaos: $(VENV)/.installed  ## every trouble for every call, and what must happen; MINUTES=30 goes on in random orders
	@$(PY) -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES),--quick)

check: $(VENV)/.installed  ## linter, formatter and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(VENV)/.installed  ## let the formatter and the linter mend what they can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: bundles  ## the server against its bare engines, training against plain loops; an hour
	@$(PY) -m benchmarks.latency --bundles $(BUNDLES)
	@$(PY) -m benchmarks.encoding --bundles $(BUNDLES)
	@$(PY) -m benchmarks.training

figures: bundles  ## the stated figures in one run: served over raw, memory, PSNR with SET5=…; five minutes
	@$(PY) -m benchmarks.figures --bundles $(BUNDLES) $(if $(SET5),--set5 $(SET5))

proto: $(VENV)/.installed  ## generate protos/*_pb2*.py again after a change to ganforge.proto
	@$(PY) -m protos.compile

sbom: $(VENV)/.installed  ## what the server consists of, as CycloneDX JSON, into build/sbom.json
	@mkdir -p build
	@$(PY) -m server.sbom > build/sbom.json
	@echo "Wrote build/sbom.json"

clean:  ## remove the environment, bundles, pictures and caches
	@rm -rf $(VENV) bundles demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
