# Every target sets up what it needs: `make say` and `make test` work from a fresh clone with Python and a Rust toolchain.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build say demo-model demo-quality demo-teacher test test-rust test-python test-levels test-torch parity-table parity parity-official parity-turbo bench bench-kernels profile lint wheel check-wheel check-wheel-pythons check-wheel-lowest sdist check-sdist wheel-cuda check-wheel-cuda check-cuda check-metal check-wyoming clean

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
BIN := $(VENV)/bin
TEXT ?= Hello there. I am a small model inside this program, and I need no network.
CLIPS := short stereo long
# What PyTorch changes: every other test file would only be run a second time.
# Not the collection without POSIX modules: make test has it, with all extras.
TORCH_TESTS ?= tests/stages tests/parity $(filter-out tests/test_collection.py, $(shell grep -lE '\<torch\>|registry.missing' tests/test_*.py))
REFERENCE ?= $(BUILD)/parity/official-environment
FULL ?= $(BUILD)/parity/checkpoint-full
PYTHONS ?= $(shell sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml)
LOWEST ?= $(firstword $(PYTHONS))
export UV_CACHE_DIR ?= $(abspath $(BUILD))/uv
# An environment with what hears the embedded model; and what that is made of, with one of PyTorch, its teacher and the listener.
LISTENER ?= $(BUILD)/listener
DEMO_WORK ?= $(HOME)/.cache/chatterbox-turbo-rs/demo-model
DEMO_PYTHON := PYTHONPATH=python:tools/demo_model $(DEMO_WORK)/env/bin/python -W ignore
# A file's tests stay together: their fixtures are made once.
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile
PYTEST ?= $(BIN)/python -m pytest -q $(WORKERS)
# An environment with PyTorch: the official package's, which has what this package needs as well.
TORCH := PYTHONPATH=$(abspath python) $(REFERENCE)/bin/python -W ignore
CARGO_TEST ?= $(shell cargo nextest --version >/dev/null 2>&1 && echo "cargo nextest run --no-fail-fast" || echo "cargo test")
# Tests and clippy take the dependencies that the wheel is built from: the release profile, and the binding's features (it has no tests).
# The crate that is tested has the checks of a debug build.
CRATES := --release -p chatterbox-turbo -p chatterbox-turbo-binding
CHECKED := --config profile.release.package.chatterbox-turbo.debug-assertions=true --config profile.release.package.chatterbox-turbo.overflow-checks=true
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 20

$(VENV)/.ready: tools/requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r tools/requirements-dev.txt
	touch $@

setup: $(VENV)/.ready ## make the virtual environment with the development tools

build: setup ## compile the core and install the package into the virtual environment
	VIRTUAL_ENV=$(abspath $(VENV)) PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/maturin develop --release --quiet

say: build ## speak a text with the embedded model into say.wav
	$(BIN)/chatterbox-turbo demo "$(TEXT)" -o say.wav

demo-model: build $(DEMO_WORK)/env/bin/python ## train the embedded model's networks and assemble it (many hours; goes on where it stopped)
	DEMO_WORK=$(DEMO_WORK) tools/demo_model/train.sh

demo-quality: build $(LISTENER)/.ready ## let a listener hear the embedded model (DEMO_QUALITY="--sentences 10" is the small version)
	PYTHONPATH=python:tools/demo_model $(LISTENER)/bin/python -W ignore tools/demo_model/quality.py $(DEMO_QUALITY)

demo-teacher: build $(DEMO_WORK)/env/bin/python ## the same beside its teacher, and the teacher's speech through tokens and back
	$(DEMO_PYTHON) tools/demo_model/quality.py --teacher --resynthesis $(DEMO_QUALITY)

$(LISTENER)/.ready: tools/demo_model/requirements-listener.txt pyproject.toml | setup
	$(BIN)/uv venv -q --clear -p $(BIN)/python $(LISTENER)
	$(BIN)/uv pip install -q -p $(LISTENER)/bin/python -r pyproject.toml -r tools/demo_model/requirements-listener.txt
	touch $@

$(DEMO_WORK)/env/bin/python:
	PYTHON=$(PYTHON) tools/demo_model/environment.sh $(DEMO_WORK)

test: test-rust test-python ## run all tests

test-rust:
	$(CARGO_TEST) $(CRATES) --tests $(CHECKED)
	cargo test --doc $(CRATES) -q
	cargo build $(CRATES) --examples -q
	mkdir -p $(BUILD)
	$(TARGET)/release/examples/say "Hello there." -o $(BUILD)/example.wav

test-python: build
	$(PYTEST) tests

test-levels: build ## run the Rust tests and those of the stages at every lower CPU level of this machine
	set -e; for level in $$($(BIN)/python -c "from chatterbox_turbo_rs import _core; print(*_core.build_info()['cpu_levels'][1:])"); do \
	  echo "CHATTERBOX_CPU=$$level"; export CHATTERBOX_CPU=$$level; $(CARGO_TEST) $(CRATES) --tests $(CHECKED); $(PYTEST) tests/stages; \
	done

parity: build $(REFERENCE)/bin/python ## run the parity checklist, Python against Rust, on the embedded model
	$(TORCH) -m chatterbox_turbo_rs parity --model demo --parties python,rust --html $(BUILD)/parity/demo.html

parity-official: build $(REFERENCE)/bin/python $(FULL)/config.json ## the checklist with the official package, on a full-size random checkpoint
	$(TORCH) -m chatterbox_turbo_rs parity --model $(FULL) --parties official,python,rust --official-python $(REFERENCE)/bin/python \
	  --thorough $(CLIPS:%=--clip tests/data/clips/%.flac) --work $(BUILD)/parity/full $(PARITY_OPTIONS) \
	  --json $(BUILD)/parity/report.json --markdown $(BUILD)/parity/report.md --html $(BUILD)/parity/report.html

parity-turbo: build $(REFERENCE)/bin/python ## the same on the published weights of Turbo, which it downloads (3 GB)
	mkdir -p $(BUILD)/real-weights
	$(TORCH) -m chatterbox_turbo_rs parity --model turbo --parties official,python,rust --official-python $(REFERENCE)/bin/python \
	  --thorough $(CLIPS:%=--clip tests/data/clips/%.flac) $(PARITY_OPTIONS) \
	  --json $(BUILD)/real-weights/parity.json --markdown $(BUILD)/real-weights/parity.md --html $(BUILD)/real-weights/parity.html

$(REFERENCE)/bin/python:
	PYTHON=$(PYTHON) tools/reference_env.sh $(REFERENCE)

$(FULL)/config.json: | setup
	$(BIN)/python tools/make_checkpoint.py --size full --seed 1234 $(FULL)

# Not the installed distribution's version: here nothing is installed.
test-torch: build $(REFERENCE)/bin/python ## run the Python tests with PyTorch, in the official package's environment
	$(REFERENCE)/bin/python -m pip install -q --disable-pip-version-check pytest "pytest-xdist>=3.6" "tomli>=2" "av>=16.1" "lxml>=5" "markdown-it-py>=3"
	OMP_NUM_THREADS=1 $(TORCH) -m pytest -q $(WORKERS) -W ignore --deselect tests/test_api.py::test_the_version_is_that_of_the_distribution $(TORCH_TESTS)

bench: build $(REFERENCE)/bin/python $(FULL)/config.json ## time everything beside the official package (BENCH_OPTIONS=--quick)
	mkdir -p $(BUILD)/bench
	$(REFERENCE)/bin/python -W ignore tools/bench_official.py $(FULL) --json $(BUILD)/bench/official.json $(BENCH_OPTIONS)

bench-kernels: ## time the kernels beside what this machine can do at most (BENCH=FILTER, BENCH_THREADS=1,2)
	cargo bench -q -p chatterbox-turbo-benches -- $(BENCH)

profile: setup $(FULL)/config.json ## what each stage spends its time on; needs perf (PROFILE_OPTIONS=--precision f32)
	cargo build -q --profile profiling -p chatterbox-turbo-binding
	$(BIN)/python tools/profile_stages.py $(TARGET)/profiling/lib_core.so $(FULL) $(PROFILE_OPTIONS)

parity-table: build ## check that the table of docs/parity.md is that of the last make parity-official
	$(BIN)/python tools/parity_table.py $(BUILD)/parity/report.json docs/parity.md

lint: setup ## formatting, clippy, ruff, type checks, stubs, workflows
	cargo fmt --check
	cargo clippy --workspace --all-targets --release -q -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/zizmor -q --offline .github/workflows
	$(MAKE) build
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest chatterbox_turbo_rs._core --concise --allowlist tools/stubtest-allowlist.txt --ignore-unused-allowlist

wheel: setup ## build the wheel into dist/
	$(BIN)/maturin build --release --quiet --out dist

check-wheel: wheel ## install the wheel into an empty environment and use it there
	$(BIN)/uvx -q twine check --strict dist/*.whl
	PYTHON=$(PYTHON) tools/check_wheel.sh dist

check-wheel-pythons: wheel ## speak with the wheel on every Python that pyproject.toml names and this machine has
	UV=$(BIN)/uv tools/check_pythons.sh dist $(BUILD)/pythons $(PYTHONS)

check-wheel-lowest: wheel ## test the wheel with the oldest packages that pyproject.toml allows
	UV=$(BIN)/uv tools/check_lowest.sh dist $(BUILD)/pythons $(LOWEST)

sdist: setup ## build the source distribution into dist/
	$(BIN)/maturin sdist --out dist

check-sdist: sdist ## install the source distribution into an empty environment and speak there
	$(BIN)/uvx -q twine check --strict dist/*.tar.gz
	PYTHON=$(PYTHON) CARGO_TARGET_DIR=$(TARGET) tools/check_sdist.sh dist

wheel-cuda: setup $(BUILD)/cuda/.ready ## build the Linux wheel with CUDA code into dist-cuda/; no GPU is needed
	tools/cuda/build_wheel.sh $(BUILD)/cuda $(BIN)/maturin dist-cuda $(WHEEL_OPTIONS)

$(BUILD)/cuda/.ready: tools/cuda/toolkit.sh | setup
	PYTHON=$(BIN)/python tools/cuda/toolkit.sh $(BUILD)/cuda
	touch $@

check-wheel-cuda: wheel-cuda ## what that wheel needs, and what it does where no GPU is
	PYTHON=$(PYTHON) tools/cuda/check_wheel.sh dist-cuda

check-cuda: wheel-cuda $(REFERENCE)/bin/python $(FULL)/config.json ## where a GPU is: the tests, the parity and the times that wait for one
	tools/cuda/check_device.sh dist-cuda $(REFERENCE)/bin/python $(FULL) $(BUILD)/cuda-check

check-wyoming: build ## speak as Home Assistant does: through wyoming-openai, where there is a Python 3.12 or newer
	mkdir -p $(BUILD)
	UV=$(BIN)/uv tools/check_wyoming.sh $(BIN)/chatterbox-turbo $(BUILD)

check-metal: setup ## on macOS: build with Metal and run the tests that wait for it
	VIRTUAL_ENV=$(abspath $(VENV)) PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/maturin develop --release --features pyo3/extension-module,metal,accelerate
	$(BIN)/chatterbox-turbo info
	$(PYTEST) -rs -m metal tests

clean: ## remove what was built
	rm -rf $(VENV) $(BUILD) dist dist-cuda target say.wav demo.wav
