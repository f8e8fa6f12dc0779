# `make run` and `make test` need Python >= 3.11 and make, nothing else. DEVICE=cuda or DEVICE=tpu installs JAX for that accelerator.
PYTHON ?= python3
DEVICE ?= cpu
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
JAX_EXTRA_cuda := "jax[cuda13]"
JAX_EXTRA_tpu := "jax[tpu]"

.PHONY: run test smoke check soak clean
.DELETE_ON_ERROR:

run: $(VENV)/installed-$(DEVICE)
	$(BIN)/python -m experiments.main $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not smoke and not soak" $(ARGS)

smoke: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m smoke $(ARGS)

soak: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m soak --timeout 7200 $(ARGS)

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

$(VENV)/installed-cpu: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found " + sys.version.split()[0] + ": name one with PYTHON=python3.12")'
	@echo "installing into $(VENV) (a minute or two, once)"
	@start=$$(date +%s); $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet -r requirements.txt \
		&& echo "installed in $$(( $$(date +%s) - start )) s"
	@touch $@

$(VENV)/installed-cuda $(VENV)/installed-tpu: $(VENV)/installed-cpu
	$(BIN)/python -m pip install --quiet $(JAX_EXTRA_$(DEVICE))
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-cpu requirements-dev.txt
	@$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
