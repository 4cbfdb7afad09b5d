# make serve · make test · make lint · make lock. Each installs what it needs into .venv.
# make serve EXTRA=gpu serves on an NVIDIA GPU; in a .venv of its own (VENV=.venv-gpu), for cpu and gpu exclude each other.
PYTHON ?= python3
EXTRA ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: serve test lint format lock clean

serve: $(VENV)/.$(EXTRA)
	$(BIN)/python -m service

test: $(VENV)/.cpu $(VENV)/.training $(VENV)/.jax $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.cpu $(VENV)/.dev
	$(BIN)/ruff check service training tests
	$(BIN)/ruff format --check service training tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix service training tests
	$(BIN)/ruff format service training tests

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

# One stamp an extra, newer than its pins once they are installed.
$(VENV)/.%: requirements/%.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# The pins agree with one another: each extra is compiled under the constraints of all of them together.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate pyproject.toml
lock: $(VENV)/.dev
	$(COMPILE) $(UPGRADE) --extra cpu --extra training --extra jax --extra dev -o $(VENV)/all.txt
	for extra in cpu training jax dev gpu; do \
		if [ $$extra = gpu ]; then grep -v '^onnxruntime=' $(VENV)/all.txt > $(VENV)/constraints.txt; \
		else cp $(VENV)/all.txt $(VENV)/constraints.txt; fi; \
		$(COMPILE) --generate-hashes --extra $$extra --constraints $(VENV)/constraints.txt -o requirements/$$extra.txt; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
