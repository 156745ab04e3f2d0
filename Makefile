# The commands of README and CONTRIBUTING. Everything that Python needs is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_INPUTS := setup.py pyproject.toml MANIFEST.in $(wildcard src_c/*.c src_c/*.h src_c/*.def src_c/kernels/*.h src_c/rules/*.h) \
	$(wildcard lrfast/*.pyx lrfast/*.h)

.PHONY: help demo test check lint format bench bench-peers clean

help:
	@echo "make demo    build, train on handwritten digits with every optimizer, show the result"
	@echo "make test    the tests"
	@echo "make check   lint, clang, sanitizers, header matrix, aarch64 under qemu"
	@echo "make lint    style and types only;  make format repairs the style"
	@echo "make bench   steps beside NumPy and the memory's speed"
	@echo "make bench-peers   ... and beside numba, torch, DeepSpeed and optax, in an environment of its own"

demo: $(VENV)/installed
	$(BIN)/lrfast demo $(DEMO_ARGUMENTS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGUMENTS)

check: lint
	$(BIN)/python tests/check.py

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror src_c/*.[ch] src_c/kernels/*.h src_c/rules/*.h lrfast/*.h tests/c/*.[ch] examples/*.c

format: $(VENV)/linted
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i src_c/*.[ch] src_c/kernels/*.h src_c/rules/*.h lrfast/*.h tests/c/*.[ch] examples/*.c

bench: $(VENV)/installed
	$(BIN)/lrfast bench $(BENCH_ARGUMENTS)

# An environment of its own for libraries that lrfast never needs; short:
# PEER_ARGUMENTS="--rules adam --cases 1024" TAIL_ARGUMENTS=--quick
bench-peers: $(VENV)-peers/installed
	mkdir -p build
	$(VENV)-peers/bin/python bench/peers/run.py --json build/peers.json $(PEER_ARGUMENTS)
	$(VENV)-peers/bin/python bench/peers/tail.py --json build/tail.json $(TAIL_ARGUMENTS)
	$(VENV)-peers/bin/python bench/peers/figures.py build/peers.json docs

$(VENV)-peers/installed: $(BUILD_INPUTS) $(wildcard lrfast/*.py lrfast/*/*.py)
	test -x $(VENV)-peers/bin/python || $(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install --quiet "setuptools>=77" "cython>=3.1,<4" "numpy>=2" torch==2.13.0 numba "jax[cpu]" \
		optax matplotlib ninja py-cpuinfo wheel
	DS_BUILD_OPS=0 $(VENV)-peers/bin/pip install --quiet --no-build-isolation deepspeed
	LRFAST_REQUIRE_EXT=1 $(VENV)-peers/bin/pip install --quiet --force-reinstall --no-deps --no-build-isolation .
	touch $@

clean:
	rm -rf $(VENV) build dist lrfast-demo lrfast-lecture *.egg-info lrfast/*.so lrfast/_core.c lrfast/_roofline.c \
		lrfast/include lrfast/lib lrfast/_build_info.json

# Built in place, so that tests and examples run on the sources as they are.
$(VENV)/installed: $(BUILD_INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lrfast needs Python 3.11 or later: apt install python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "venv and pip are missing: apt install python3-venv"; exit 1; }
	@command -v $${CC:-cc} > /dev/null || { echo "a C compiler is missing: apt install gcc libc6-dev"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; \
		sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
		{ echo "Python.h is missing: apt install python3-dev"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "setuptools>=77" "cython>=3.1,<4" "numpy>=2" build
	LRFAST_REQUIRE_EXT=1 $(BIN)/pip install --quiet --no-build-isolation --editable ".[demo,test]"
	touch $@

$(VENV)/linted: $(VENV)/installed
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[lint]"
	touch $@
