# Everything that a developer does here. Each target installs what it needs into a virtual environment by itself.
#
#   make test            what continuous integration runs: formatting, lints, Rust tests, Python tests, types
#   make test-libraries  the tests of objects of other libraries, PyTorch and all: a large download
#   make test-torch      the tests of PyTorch with the oldest version of it that is supported, or another: TORCH=2.9.1
#   make test-clusters   the tests of objects that live in clusters: Ray on several nodes, and Spark, which needs Java;
#                        some minutes, and another large download
#   make check           the quick part of it, for between two edits
#   make demo            a data-science session saved after every cell, next to pickle, dill and cloudpickle
#   make bench           the measurements, into benches/results/
#   make soak            100,000 random graphs, 200 savers and agents killed at random moments, 10,000 simulated histories of
#                        writers over a network that fails, the model of their protocol with wider bounds, and eight
#                        processes that save a hundred versions each to one bucket (moto) while another sweeps it
#   make sanitize        the code that maps and watches memory, under AddressSanitizer: needs a nightly toolchain of Rust
#   make soak-training   a training run that is killed 50 times and compared bit by bit with one in peace: needs PyTorch
#
# Another Python, with an environment of its own:  make test PYTHON=python3.13

PYTHON ?= python3
ifeq ($(filter command% environment%,$(origin PYTHON)),)
VENV ?= .venv
else
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif

ROOT := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
PY := $(ROOT)/$(VENV)/bin/python
STAMPS := $(VENV)/.stamps
export VIRTUAL_ENV := $(ROOT)/$(VENV)
export PYO3_PYTHON := $(PY)
unexport PYTHONHOME
# Where the servers are that imitate object stores, for every Python.
SERVERS := .venv/servers
AZURITE_BLOB := $(SERVERS)/node_modules/.bin/azurite-blob
S3S_FS_BINARY := $(SERVERS)/bin/s3s-fs
export PATH := $(ROOT)/$(SERVERS)/bin:$(ROOT)/$(SERVERS)/node_modules/.bin:$(PATH)

RUST_SOURCES := Cargo.toml $(wildcard Cargo.lock) $(shell find crates kernels -name '*.rs' -o -name '*.cu' -o -name '*.cuh' -o -name Cargo.toml -o -name build.rs)
FAST_TESTS := tests/python/test_api.py $(wildcard tests/python/test_reducers_*.py) tests/python/test_placeholder.py
LIBRARY_TESTS := $(wildcard $(addprefix tests/python/test_,libraries.py torch*.py arrow.py numpy_types.py models.py devices.py kernels.py))
TORCH ?= 2.4.1
TORCH_VENV := $(VENV)-torch-$(TORCH)
TORCH_TESTS := $(wildcard tests/python/test_torch*.py)
CLUSTER_TESTS := $(wildcard tests/python/test_ray*.py tests/python/test_spark*.py tests/python/test_dask.py tests/python/test_cluster_examples.py)
SOAK_GRAPHS ?= 100000
SOAK_KILLS ?= 200
SOAK_SIMULATIONS ?= 10000
SOAK_TRAINING_KILLS ?= 50

.PHONY: all build test test-libraries test-torch test-clusters check format lint rust-test python-test types release demo bench soak sanitize soak-training clean

all: build

# --- environment ------------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@command -v cargo >/dev/null || { echo "cargo is not installed: see https://rustup.rs"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed: make ... PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/group-%: $(STAMPS)/venv pyproject.toml
	$(PY) -m pip install --quiet --group $*
	@touch $@

# Azure's emulator, of npm, and a second server of S3, which needs a newer Rust than chipmink does. Where one cannot be had, its
# tests are skipped and say so.
$(AZURITE_BLOB):
	@npm install --silent --no-audit --no-fund --no-save --fetch-retries 1 --fetch-timeout 60000 --prefix $(SERVERS) azurite@3 \
	  || echo "azurite could not be installed: its tests are skipped"

$(S3S_FS_BINARY):
	@CARGO_PROFILE_DEV_DEBUG=none cargo install --quiet --locked --debug --features binary --root $(SERVERS) s3s-fs@0.14.1 \
	  || echo "s3s-fs could not be installed: its tests are skipped"

# --- build ------------------------------------------------------------------------------------------------------------

$(STAMPS)/build: $(STAMPS)/group-build pyproject.toml $(RUST_SOURCES)
	$(PY) -m maturin develop --quiet --profile develop
	@touch $@

build: $(STAMPS)/build

# --- tests ------------------------------------------------------------------------------------------------------------

test: lint rust-test python-test types

check: lint types build $(STAMPS)/group-test
	$(PY) -m pytest -q -x $(FAST_TESTS)

lint: $(STAMPS)/venv
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings

format:
	cargo fmt --all

rust-test: $(STAMPS)/group-test $(AZURITE_BLOB) $(S3S_FS_BINARY) build
	LD_LIBRARY_PATH="$$($(PY) -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))'):$$LD_LIBRARY_PATH" \
	  cargo test --quiet --workspace

python-test: build $(STAMPS)/group-test $(AZURITE_BLOB)
	$(PY) -m pytest -q tests/python

test-libraries: build $(STAMPS)/group-libraries
	$(PY) -m pytest -q $(LIBRARY_TESTS)

# In an environment of its own; what is built is that of the other.
test-torch: build
	test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(TORCH_VENV)/bin/python -m pip install --quiet --group test safetensors "torch==$(TORCH)"
	PYTHONPATH="$(ROOT)/crates/chipmink-python/python" $(TORCH_VENV)/bin/python -m pytest -q $(TORCH_TESTS)

test-clusters: build $(STAMPS)/group-clusters
	$(PY) -m pytest -q $(CLUSTER_TESTS)

types: build $(STAMPS)/group-test
	$(PY) -m mypy
	$(PY) -m mypy.stubtest chipmink._chipmink

# --- to look at -------------------------------------------------------------------------------------------------------

# What shows speed runs what users install. The other build is then no longer there, and is made again when a test wants it.
release: $(STAMPS)/group-demo
	$(PY) -m maturin develop --quiet --release
	@rm -f $(STAMPS)/build

demo: release
	$(PY) -m examples.demo

bench: release
	$(PY) -m benches

soak: build $(STAMPS)/group-test
	$(PY) tests/python/soak.py --graphs $(SOAK_GRAPHS)
	$(PY) tests/python/staging_kills.py --kills $(SOAK_KILLS)
	$(PY) tests/python/bucket_writers.py --writers 8 --commits 100
	CHIPMINK_SIMULATIONS=$(SOAK_SIMULATIONS) cargo test --package chipmink-test-simulation -- --nocapture
	cargo test --package chipmink-test-protocol -- --ignored --nocapture

# Tests let some memory go on purpose, as a process does that dies. Miri knows neither file mappings nor shm_open, madvise and
# the ioctls of dirty pages, which is all that the crate does.
sanitize:
	RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/sanitize ASAN_OPTIONS=detect_leaks=0 \
	  cargo +nightly test --quiet --target "$$(rustc -vV | sed -n 's/^host: //p')" \
	  --package chipmink-shm --package chipmink-digest

soak-training: build $(STAMPS)/group-libraries
	$(PY) tests/python/training_kills.py --kills $(SOAK_TRAINING_KILLS)

clean:
	cargo clean
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .hypothesis
