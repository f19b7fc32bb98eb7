# On a bare machine with Python 3.10-3.12 and make, every target does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
BIN := .venv/bin
# TensorFlow's start-up notices are not this project's.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: venv demo test test-all test-qualtran test-deepxde newcomer package matrix bench docs lint clean

venv: .venv/installed

.venv/installed: pyproject.toml setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[tfq,examples,dev,bench,docs]"
	touch $@

demo: venv
	$(BIN)/python examples/digits_mlp.py --quick --out results/digits_mlp.png
	$(BIN)/python examples/hybrid_iris.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/readme_limits.py

# In two runs: what TensorFlow keeps of train steps, of Adam and of custom gradients, adds up.
FIRST := tests/curvature tests/extending tests/loss tests/optimizer
RUN := $(BIN)/python -m pytest -n 2 --dist=worksteal
FAST := -m "not slow" --hypothesis-profile=same_examples

test: lint
	$(RUN) $(FAST) $(FIRST)
	$(RUN) $(FAST) $(FIRST:%=--ignore=%)

test-all: lint package test-qualtran test-deepxde
	$(RUN) --cov --cov-report= $(FIRST)
	$(RUN) --cov --cov-append --cov-report=term $(FIRST:%=--ignore=%)

# Qualtran has an environment of its own: it brings a hundred packages, Dash's pytest plugin, which
# warns as it loads, among them. TensorFlow Quantum is not in it, nor its bounds on Cirq and
# TensorFlow, so that the package is seen to train without.
test-qualtran: .venv-qualtran/installed
	.venv-qualtran/bin/python -m pytest -p no:dash tests/solvers/test_resources.py \
		tests/test_package.py tests/test_registry.py \
		-k "qualtrans or cirqs or trains or import"

.venv-qualtran/installed: setup.cfg
	$(PYTHON) -m venv .venv-qualtran
	.venv-qualtran/bin/python -m pip install --quiet --editable ".[resources]" \
		"pytest>=8" "hypothesis>=6.100"
	touch $@

# DeepXDE has an environment of its own, too: TensorFlow Probability brings a second Keras.
test-deepxde: .venv-deepxde/installed
	.venv-deepxde/bin/python -m pytest tests/test_deepxde.py tests/optimizer/test_found_loss.py \
		tests/test_docs.py -k "deepxde or runs and pinns"

.venv-deepxde/installed: setup.cfg
	$(PYTHON) -m venv .venv-deepxde
	.venv-deepxde/bin/python -m pip install --quiet --editable ".[deepxde]" \
		"pytest>=8" "hypothesis>=6.100"
	touch $@

# README's lines, one after the other, in a new environment; its tests are `make test`'s.
newcomer: venv
	$(BIN)/python tests/environments/newcomer.py --leave-out "make test"

# What would be published: both files pass twine, the wheel trains in an environment of its own, and
# the tests of the source archive are collected from it.
package: venv
	$(BIN)/python tests/environments/package.py

# Other versions of Python and of what is required, an environment each.
matrix:
	$(PYTHON) tests/environments/matrix.py

bench: venv
	$(BIN)/python benchmarks/hessian.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/whole_wait.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/bookkeeping.py
	$(BIN)/python benchmarks/solve.py
	$(BIN)/python benchmarks/fisher.py
	$(BIN)/python benchmarks/race.py
	$(BIN)/python benchmarks/pinn.py
	$(BIN)/python benchmarks/classics.py
	$(BIN)/python benchmarks/kinks.py
	$(BIN)/python benchmarks/quasi_newton.py
	$(BIN)/python benchmarks/quasi_newton_cost.py
	$(BIN)/python benchmarks/random_problems.py
	$(BIN)/python benchmarks/small_batches.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/many_models.py
	$(BIN)/python benchmarks/quantum.py
	$(BIN)/python benchmarks/quantum_training.py
	$(BIN)/python benchmarks/scheduling.py
	$(BIN)/python benchmarks/prices.py
	$(BIN)/python benchmarks/encodings.py

docs: venv
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf site .venv .venv-qualtran .venv-deepxde .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
