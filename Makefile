# `make help` lists what there is. Every target makes what it needs first, inside this folder: .venv and .edge.
PYTHON ?= python3
MODEL ?=
TARGET ?=
EDGE := .venv/bin/edge

# The commands' options, from the variables that were given.
NETWORK = '$(MODEL)' $(if $(TARGET),--target '$(TARGET)') $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)') \
	$(if $(CALIBRATION),--calibration '$(CALIBRATION)') $(if $(FORMATS),--formats '$(FORMATS)') \
	$(if $(PRECISIONS),--precisions '$(PRECISIONS)') $(if $(OUT),--out '$(OUT)')
CHECKED_ON = $(if $(DEVICES),--device '$(DEVICES)')
EMITTED_BY = $(if $(JOBS),--jobs '$(JOBS)') $(if $(TFLITE_CONVERTER),--tflite-converter '$(TFLITE_CONVERTER)')
MEASURED_BY = $(if $(RUNNER),--runner '$(RUNNER)') $(if $(BUDGET),--budget '$(BUDGET)')
# A file's tests share what they export, so a file stays with one process.
TESTS_AT_ONCE = -n auto --maxprocesses 4 --dist loadfile
FINISHED = '$(or $(OUT),dist)/$(TARGET)/$(notdir $(MODEL:.pt2=))'

.PHONY: help setup export verify cost bench bench-ops tune networks models targets formats test test-fast lint format lock clean

help: ## list the targets
	@echo "make export TARGET=cortex-a72 MODEL=fasternet_t1"
	@echo "  variables: TARGET MODEL CHECKPOINT CALIBRATION FORMATS PRECISIONS OUT JOBS TFLITE_CONVERTER DEVICES PAGE RUNNER BUDGET"
	@sed -nE 's/^([a-z -]+):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | \
	  awk -F '\t' '{n = split($$1, names, " "); for (i = 1; i <= n; i++) printf "  make %-10s %s\n", names[i], $$2}'

setup: ## make the pipeline's own environment (every other target does it too)
	@$(PYTHON) -m edge.toolchains.environments base

export: setup ## make, run and check every artifact of MODEL for TARGET
	@$(EDGE) export $(NETWORK) $(CHECKED_ON) $(EMITTED_BY)

verify: setup ## check what `make export` made again, on DEVICES
	@$(EDGE) verify $(FINISHED) $(CHECKED_ON)

cost: setup ## count one inference of each artifact on the emulated core
	@$(EDGE) cost $(FINISHED)

bench-ops: setup ## compare the operators' kernels on TARGET's emulated core, or on the host (RUNNER=host)
	@$(EDGE) bench-ops --target '$(TARGET)' $(MEASURED_BY)

tune: setup ## search the fastest kernels of MODEL for TARGET and keep them as records
	@$(EDGE) tune '$(MODEL)' --target '$(TARGET)' $(MEASURED_BY) $(if $(JOBS),--jobs '$(JOBS)')

bench: setup ## compare the artifacts of MODEL with the peers: counted on the emulated core, or timed on this host
	@$(EDGE) bench $(NETWORK) $(if $(PAGE),--page '$(PAGE)')

networks: setup ## write the README's table from the finished exports for TARGET
	@$(EDGE) networks --target '$(TARGET)' $(if $(OUT),--out '$(OUT)') --page '$(or $(PAGE),README.md)'

models targets formats: setup ## list what there is
	@$(EDGE) $@

test: setup ## every test, with the real exporters, runtimes and a browser
	@$(PYTHON) -m edge.toolchains.environments litert onnx2tf bench
	.venv/bin/python -m pytest $(TESTS_AT_ONCE)

test-fast: setup ## the tests that take seconds
	.venv/bin/python -m pytest $(TESTS_AT_ONCE) -m "not slow"

lint: setup ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: setup ## let ruff format the code
	.venv/bin/ruff format .

lock: ## choose versions anew and write the lock files
	$(PYTHON) -m edge.toolchains.lock

clean: ## remove everything that set-up and exports made
	rm -rf .venv .edge dist
