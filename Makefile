# Everything runs in .venv, which requirements/install.sh makes. PYTHON and ROS_WHEELS choose what
# it is made of; DEMO, PYTEST and BENCH pass options: make demo DEMO='--recordings real'.
export PYTHON ?= python3
export ROS_WHEELS ?= jazzy
BIN := .venv/bin
DEMO ?=
PYTEST ?=
BENCH ?=

.PHONY: demo test bench lint format clean environment train-environment test-environment

demo: environment
	$(BIN)/mm-perception demo $(DEMO)

test: test-environment
	$(BIN)/python -m pytest $(PYTEST)

bench: train-environment
	$(BIN)/mm-perception benchmark --json docs/performance.json --markdown docs/performance.md \
		--pictures docs/images $(BENCH)

lint: test-environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	rm -rf .venv build install log demo_report *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
