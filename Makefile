# make serve · make test · make lint · make lock. Each installs what it needs into .venv.
# make serve EXTRA=gpu serves on an NVIDIA GPU; in a .venv of its own (VENV=.venv-gpu), for cpu and gpu exclude each other.
PYTHON ?= python3
EXTRA ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: serve test test-cluster test-browser openapi sdk test-sdk schema bench gpu-bench device-bench pressure large captions cluster-bench batch-bench soak overload fuzz-images fuzz-http sbom audit images build-check lint \
	format lock clean

serve: $(VENV)/.$(EXTRA)
	$(BIN)/python -m service

# Those of the running server one after the other; the others, which each keep a single core busy, two at a time. Some of them: make test ARGS=tests/service
ALONE := tests/service
FEW := tests/cluster -m few
TOGETHER := tests/contract tests/models tests/training $(wildcard tests/test_*.py)
PARALLEL := --numprocesses 2 --dist load --maxschedchunk 1
test: $(VENV)/.cpu $(VENV)/.training $(VENV)/.jax $(VENV)/.data $(VENV)/.telemetry $(VENV)/.cluster $(VENV)/.dev
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(BIN)/python -m pytest $(ALONE) && $(BIN)/python -m pytest $(FEW) && $(BIN)/python -m pytest $(TOGETHER) $(PARALLEL))

# The service on a Ray cluster of three nodes: faults and scaling, then every test of the shared server through it. Some ten minutes.
test-cluster: $(VENV)/.cpu $(VENV)/.training $(VENV)/.cluster $(VENV)/.dev
	$(BIN)/python -m pytest tests/cluster
	$(BIN)/python -m pytest tests/service --cluster

# Every tab of the page in Chromium (apt install chromium), with screenshots in build/screenshots; three with ARGS="-m few".
test-browser: $(VENV)/.cpu $(VENV)/.training $(VENV)/.dev $(VENV)/.browser
	$(BIN)/python -m pytest tests/browser $(ARGS)

# The document in docs, after a change of the API.
openapi: $(VENV)/.cpu
	$(BIN)/python -m service openapi > docs/openapi.json

# Typed clients for Python and TypeScript, generated from the OpenAPI document, each with its package: build/sdk/python/*.whl, build/sdk/typescript/*.tgz
NPM := PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm
sdk: $(VENV)/.cpu $(VENV)/.dev $(VENV)/.sdk clients/typescript/node_modules/.package-lock.json
	rm -rf build/sdk && mkdir -p build/sdk/typescript
	$(BIN)/python -m service openapi > build/openapi.json
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/openapi-python-client generate --path build/openapi.json --config clients/python/config.yml --meta setup \
		--output-path build/sdk/python --fail-on-warning
	cp LICENSE clients/python/README.md build/sdk/python
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/sdk/python build/sdk/python
	cp LICENSE clients/typescript/README.md clients/typescript/package.json build/sdk/typescript
	$(NPM) --prefix build/sdk/typescript pkg set version=$$($(BIN)/python -c 'from service import __version__; print(__version__)')
	$(NPM) --prefix clients/typescript run --silent build
	$(NPM) --prefix build/sdk/typescript pkg delete scripts devDependencies
	$(NPM) pack ./build/sdk/typescript --silent --pack-destination build/sdk/typescript

# Every operation through both, and through what openapi-generator makes for Python, against the real server; and whether types are right.
test-sdk: sdk $(VENV)/.training
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/sdk/installed build/sdk/python/*.whl
	PYTHONPATH="$(abspath build/sdk/installed)" $(BIN)/python -m pytest tests/sdk $(ARGS)

clients/typescript/node_modules/.package-lock.json: clients/typescript/package-lock.json | $(VENV)/.dev
	$(NPM) --prefix clients/typescript ci --silent

# The OpenAPI document against a running server, a minute or two: ATELIER_ADMIN_KEYS=admin make serve, and beside it make schema
schema: $(VENV)/.dev
	SCHEMATHESIS_HOOKS=tests/schemathesis_hooks.py $(BIN)/schemathesis --config-file tests/schemathesis.toml run $(or $(URL),http://localhost:8000)/openapi.json --checks all \
		--max-examples 100 --header "Authorization: Bearer $(or $(KEY),admin)" $(ARGS)

# Needs wrk. LitServe has an environment of its own.
bench: $(VENV)/.cpu $(VENV)/.training .venv-litserve/.done
	$(BIN)/python tests/bench/bench.py --litserve .venv-litserve/bin/python $(ARGS)

# On an NVIDIA GPU, beside the sessions alone and plain FastAPI, then memory; needs wrk: make gpu-bench EXTRA=gpu VENV=.venv-gpu
gpu-bench: $(VENV)/.$(EXTRA)
	PYTHONPATH=. $(BIN)/python tests/bench/gpu.py $(ARGS)

# How much of the time the server keeps a GPU busy, told with a stand-in for one; needs wrk: make device-bench ARGS="--rates 30 60"
device-bench: $(VENV)/.cpu $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python tests/bench/device.py $(ARGS)

# The server under large uploads, callers that leave, stops, reloads and a full queue.
pressure: $(VENV)/.cpu $(VENV)/.dev
	$(BIN)/python tests/bench/pressure.py

# One picture: make large ARGS="translate pix2pix-relief-to-satellite 256x256"
large: $(VENV)/.cpu $(VENV)/.dev
	$(BIN)/python tests/bench/large.py $(ARGS)

# Captions: how long one takes, and how many a second for several clients: make captions ARGS=captions-scenes
captions: $(VENV)/.cpu $(VENV)/.dev
	$(BIN)/python tests/bench/captions.py $(ARGS)

# Through Ray Serve and without it; needs wrk.
cluster-bench: $(VENV)/.cpu $(VENV)/.cluster $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python -W ignore tests/bench/cluster.py $(ARGS)

# Folders through Ray Data, beside a loop: make batch-bench ARGS="embed caption --number 5000"
batch-bench: $(VENV)/.cpu $(VENV)/.cluster $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python tests/bench/batch.py $(or $(ARGS),embed caption)

# Ten minutes of mixed traffic, and a flood of a minute with what belongs to it; figures go into docs/load.md. Shorter with ARGS="--seconds 60".
soak: $(VENV)/.cpu $(VENV)/.training $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python tests/soak/traffic.py $(ARGS)

# Needs wrk.
overload: $(VENV)/.cpu $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python tests/soak/overload.py $(ARGS)

# Bytes into the decoders, guided by what of them they reach, for MINUTES (10); what is found goes on from one time to the next. Linux, Python 3.11 to 3.13.
fuzz-images: $(VENV)/.cpu $(VENV)/.fuzz
	PYTHONPATH=.:tests $(BIN)/python -W ignore tests/fuzz/fuzz_images.py -max_total_time=$$((60 * $(or $(MINUTES),10))) $(ARGS)

# 24,000 broken pictures through the running server; fewer with ARGS="--number 2000".
fuzz-http: $(VENV)/.cpu $(VENV)/.training $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python tests/fuzz/over_http.py $(ARGS)

# A bill of what serving installs, with versions and hashes, in CycloneDX's form: build/sbom/cpu.json and gpu.json
sbom: $(VENV)/.audit
	mkdir -p build/sbom
	for extra in cpu gpu; do $(BIN)/cyclonedx-py requirements requirements/$$extra.txt --pyproject pyproject.toml --output-reproducible -o build/sbom/$$extra.json; done

# Known vulnerabilities of all pins, from the package index or, with ARGS="--vulnerability-service osv", from OSV. A package that cannot be asked about fails too.
audit: $(VENV)/.audit
	for pins in requirements/*.txt; do echo $$pins; $(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement $$pins $(ARGS) || failed=1; done; exit $${failed:-0}

.venv-litserve/.done: tests/bench/litserve.txt
	$(PYTHON) -m venv .venv-litserve
	.venv-litserve/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Images atelier:cpu, atelier:gpu and atelier:training, each also tagged with the version; for a Ray cluster's nodes make image-cluster image-cluster-gpu.
# make images BUILDER=podman builds them without Docker.
BUILDER ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' service/__init__.py)
DOCKERFILE.cpu := --file docker/service.Dockerfile --target cpu
DOCKERFILE.gpu := --file docker/service.Dockerfile --target gpu
DOCKERFILE.cluster := --file docker/service.Dockerfile --target cluster
DOCKERFILE.cluster-gpu := --file docker/service.Dockerfile --target cluster-gpu
DOCKERFILE.training := --file docker/training.Dockerfile
images: image-cpu image-gpu image-training
image-%:
	$(BUILDER) build $(DOCKERFILE.$*) --label org.opencontainers.image.version=$(VERSION) --tag atelier:$* --tag atelier:$(VERSION)-$* $(BUILD_OPTIONS) .

# The CPU image built, started, asked and measured, without an engine (apt install buildah).
build-check:
	docker/build_check.sh

lint: $(VENV)/.cpu $(VENV)/.telemetry $(VENV)/.cluster $(VENV)/.dev
	$(BIN)/ruff check service training tests docker
	$(BIN)/ruff format --check service training tests docker
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml docker/keys.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(VENV)/.dev
	$(BIN)/ruff check --fix service training tests docker
	$(BIN)/ruff format service training tests docker

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

# One stamp an extra, newer than its pins once they are installed.
$(VENV)/.%: requirements/%.txt | $(BIN)/python
	@echo "Installing $< into $(VENV): this takes a while, once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# The pins agree with one another: each extra is compiled under the constraints of all of them together. They begin with those that are there.
EXTRAS := cpu training jax data telemetry cluster browser sdk fuzz audit dev
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate pyproject.toml
lock: $(VENV)/.dev
	for extra in $(EXTRAS); do cat requirements/$$extra.txt 2>/dev/null; done | sed -n 's/ *\\$$//; /==/p' | sort -u > $(VENV)/all.txt
	$(COMPILE) $(UPGRADE) $(EXTRAS:%=--extra %) -o $(VENV)/all.txt
	for extra in $(EXTRAS) gpu; do \
		if [ $$extra = gpu ]; then grep -v '^onnxruntime=' $(VENV)/all.txt > $(VENV)/constraints.txt; \
		else cp $(VENV)/all.txt $(VENV)/constraints.txt; fi; \
		$(COMPILE) --generate-hashes --extra $$extra --constraints $(VENV)/constraints.txt -o requirements/$$extra.txt; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
