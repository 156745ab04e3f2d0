# The commands of README and CONTRIBUTING. Everything that Python needs is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_INPUTS := setup.py pyproject.toml MANIFEST.in $(wildcard src_c/*.c src_c/*.h src_c/*.def) \
	$(wildcard src_c/kernels/*.h src_c/rules/*.h) \
	$(wildcard lrfast/*/*.pyx lrfast/*/*.pxd lrfast/lab/bench/*.pyx lrfast/lab/bench/*.h)

.PHONY: help demo test check test-all test-torch test-frameworks mutants lint format bench bench-against bench-peers clean

help:
	@echo "make demo    build, train on handwritten digits with every optimizer, show the result"
	@echo "make test    the tests, in minutes: of each big matrix the line of the day"
	@echo "make check   lint; other compilers, sanitizers, aarch64 under qemu; a line of flags, a line of versions"
	@echo "make test-torch  the tests that need PyTorch, in an environment of its own"
	@echo "make test-frameworks  ten steps under Lightning, Accelerate and transformers"
	@echo "make test-all    every line of every matrix, in hours; goes on where it was cut off"
	@echo "make mutants     whether the tests notice small mistakes in the sources; goes on as well"
	@echo "make lint    style and types only;  make format repairs the style"
	@echo "make bench   steps beside NumPy and the memory's speed"
	@echo "make bench-against OLD=v0.1.0   HEAD beside another revision or wheel"
	@echo "make bench-peers   ... and beside numba, torch, DeepSpeed and optax, in an environment of its own"

demo: $(VENV)/installed
	$(BIN)/lrfast demo $(DEMO_ARGUMENTS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGUMENTS)

check: lint
	$(BIN)/python tests/rings.py check

test-all: $(VENV)/installed
	$(BIN)/python tests/rings.py all

# An environment of its own for PyTorch, which lrfast never needs: 200 MB, a minute.
test-torch: $(VENV)-torch/installed
	$(VENV)-torch/bin/python -m pytest tests/test_torch_*.py tests/test_with_torch.py tests/test_oracle.py \
		tests/test_docs.py -k "torch or examples" \
		$(PYTEST_ARGUMENTS)

# And one for those who train with it; their tests are skipped where they are missing.
test-frameworks: $(VENV)-torch/installed
	test -x $(VENV)-frameworks/bin/python || $(PYTHON) -m venv $(VENV)-frameworks
	$(VENV)-frameworks/bin/pip install --quiet torch==2.13.0 accelerate lightning transformers pytest pytest-xdist mpmath ml_dtypes
	PYTHONPATH=. $(VENV)-frameworks/bin/python -m pytest tests/test_torch_frameworks.py

mutants: $(VENV)/installed
	$(BIN)/python tests/mutants.py all

lint: $(VENV)/linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror src_c/*.[ch] src_c/kernels/*.h src_c/rules/*.h lrfast/lab/bench/*.h tests/c/*.[ch] examples/*.c

format: $(VENV)/linted
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i src_c/*.[ch] src_c/kernels/*.h src_c/rules/*.h lrfast/lab/bench/*.h tests/c/*.[ch] examples/*.c

bench: $(VENV)/installed
	$(BIN)/lrfast bench $(BENCH_ARGUMENTS)

bench-against: $(VENV)/installed
	$(BIN)/python bench/before_after.py $(OLD) $(or $(NEW),HEAD) $(BENCH_ARGUMENTS)

# An environment of its own for libraries that lrfast never needs; short:
# PEER_ARGUMENTS="--rules adam --cases 1024" OPTION_ARGUMENTS=--quick
bench-peers: $(VENV)-peers/installed
	mkdir -p build
	$(VENV)-peers/bin/python bench/peers/run_steps.py --json build/peers.json $(PEER_ARGUMENTS)
	$(VENV)-peers/bin/python bench/peers/run_options.py --json build/options.json $(OPTION_ARGUMENTS)
	$(VENV)-peers/bin/python bench/peers/draw_peers.py build/peers.json docs
	$(VENV)-peers/bin/python bench/peers/run_torch.py --json build/torch.json $(TORCH_ARGUMENTS)

$(VENV)-peers/installed: $(BUILD_INPUTS) $(wildcard lrfast/*.py lrfast/*/*.py lrfast/*/*/*.py)
	test -x $(VENV)-peers/bin/python || $(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install --quiet "setuptools>=77" "cython>=3.1,<4" "numpy>=2" torch==2.13.0 numba "jax[cpu]" \
		optax matplotlib ninja py-cpuinfo wheel
	DS_BUILD_OPS=0 $(VENV)-peers/bin/pip install --quiet --no-build-isolation deepspeed
	LRFAST_REQUIRE_EXT=1 $(VENV)-peers/bin/pip install --quiet --force-reinstall --no-deps --no-build-isolation .
	touch $@

$(VENV)-torch/installed: $(BUILD_INPUTS)
	test -x $(VENV)-torch/bin/python || $(PYTHON) -m venv $(VENV)-torch
	$(VENV)-torch/bin/pip install --quiet "setuptools>=77" "cython>=3.1,<4" "numpy>=2" torch==2.13.0 scipy
	LRFAST_REQUIRE_EXT=1 $(VENV)-torch/bin/pip install --quiet --no-build-isolation --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-torch build dist lrfast-demo lrfast-lecture *.egg-info lrfast/*/*.so lrfast/*/*/*.so lrfast/_engine/_core.c lrfast/lab/bench/_roofline.c lrfast/torch/_tensors.c \
		lrfast/include lrfast/lib lrfast/_build_info.json lrfast/*.pyi

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
