# Everything runs in .venv, which requirements/install.sh makes. PYTHON and ROS_WHEELS choose what
# it is made of; DEMO, PYTEST, BENCH and GPU pass options: make demo DEMO='--recordings real'.
export PYTHON ?= python3
export ROS_WHEELS ?= jazzy
BIN := .venv/bin
DEMO ?=
PYTEST ?=
BENCH ?=
GPU ?=
SOAK_SECONDS ?= 1800
FUZZ_PICTURES ?= 1000000
FUZZ_BUNDLES ?= 100000
FUZZ_GRAPHS ?= 100000
COVERAGE ?= tests/fusion tests/engines tests/ros

.PHONY: demo test test-fast bench soak fault-matrix fuzz kills coverage sbom gpu-check docs lint format clean \
	environment train-environment test-environment

demo: environment
	$(BIN)/mm-perception demo $(DEMO)

# Three lanes: what only computes, what waits for live nodes (a file's tests stay together), and what
# needs the machine to itself. Exit code 5: none was chosen.
test: test-environment
	$(BIN)/python -m pytest -n 2 -m 'not live and not alone' $(PYTEST) || test $$? = 5
	$(BIN)/python -m pytest -n 2 --dist loadfile -m live $(PYTEST) || test $$? = 5
	$(BIN)/python -m pytest -m alone $(PYTEST) || test $$? = 5

# Without what trains, soaks or injects faults: at most three minutes on two cores.
test-fast: test-environment
	$(BIN)/python -m pytest -n 2 -m 'not slow and not live and not alone' $(PYTEST) || test $$? = 5
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'live and not slow' $(PYTEST) || test $$? = 5

bench: train-environment
	$(BIN)/mm-perception benchmark --json docs/performance.json --markdown docs/performance.md \
		--pictures docs/images $(BENCH)

# Sensors that fail and recover at random; the tests run SOAK_SECONDS=60.
soak: train-environment
	$(BIN)/python -m checks.soak --seconds $(SOAK_SECONDS) --json docs/soak.json

fault-matrix: test-environment
	FAULT_MATRIX=docs/fault_matrix.json $(BIN)/python -m pytest tests/ros/test_fault_matrix.py -v

# The tests run a few thousand of each; here a million pictures take some ten minutes.
fuzz: test-environment
	$(BIN)/python -m checks.fuzz_messages --json docs/fuzz.json
	$(BIN)/python -m checks.fuzz_pictures --tries $(FUZZ_PICTURES) --json docs/fuzz_pictures.json
	$(BIN)/python -m checks.fuzz_bundles --tries $(FUZZ_BUNDLES) --json docs/fuzz_bundles.json
	$(BIN)/python -m checks.fuzz_graphs --tries $(FUZZ_GRAPHS) --json docs/fuzz_graphs.json

# Training, saving and importing, each killed at random moments.
kills: train-environment
	$(BIN)/python -m checks.kills --json docs/kills.json

# Lines of fusion, engines and ros that tests run, in their own processes too.
coverage: test-environment
	mkdir -p .coverage && $(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(COVERAGE)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# What is installed in .venv, in the form of CycloneDX, for scanners of known vulnerabilities.
sbom: environment
	$(PYTHON) -m venv .sbom && .sbom/bin/pip install --quiet 'cyclonedx-bom>=7,<8'
	.sbom/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json

# On a machine with a GPU, torch, onnx, safetensors, OpenCV, pytest and scipy: no ROS, no network, and
# none of our environments. Six minutes at most; make gpu-check GPU='--device cpu --quick' tries it.
gpu-check:
	PYTHONPATH=. $(PYTHON) -m checks.gpu $(GPU)

# The site of the documentation, in .site/html; fails at a link that leads nowhere. From Python 3.11 on.
docs:
	@bash requirements/install.sh docs
	$(BIN)/python -m checks.site

# ruff and mypy, ament's flake8 and pep257 (setup.cfg), and no block of 12 lines or more twice.
lint: test-environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/flake8 mm_perception launch
	$(BIN)/pydocstyle mm_perception launch
	$(BIN)/pylint mm_perception

format: test-environment
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

environment:
	@bash requirements/install.sh run

# PyTorch and what else training, evaluation and benchmarks need; the demo and the nodes do not.
train-environment:
	@bash requirements/install.sh train

test-environment:
	@bash requirements/install.sh test

clean:
	rm -rf .venv .sbom .site .coverage sbom.json build install log demo_report *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
