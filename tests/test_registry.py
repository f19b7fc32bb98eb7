"""What the modules register, what importing the package registers, and what it exports: all agree.

And what importing it does not load.

The modules are read, not imported: one that nobody imports is found, too.
"""

import ast
import importlib
import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import pytest

import keras_qnewton

ROOT = pathlib.Path(keras_qnewton.__file__).parent
# Where a registered class is exported. Other kinds go by their names alone.
EXPORTED_BY = {
    "blocks": ("keras_qnewton.curvature",),
    "cost": ("keras_qnewton.scheduling",),
    "curvature": ("keras_qnewton.curvature", "keras_qnewton.quasi_newton"),
    "damping": ("keras_qnewton.conditioning",),
    "readout": ("keras_qnewton.solvers",),
    "solver": ("keras_qnewton.solvers",),
}
# Policies that are given as objects: settings of something else, a user's own function, and what a
# curvature is among several replicas.
NOT_BY_NAME = {
    "Forcing",
    "FunctionCost",
    "Pruning",
    "Reshape",
    "Scheduler",
    "StrongWolfe",
    "_OfReplicas",
}


class Class(NamedTuple):
    """A class as it is written."""

    name: str
    bases: tuple[str, ...]
    methods: frozenset[str]
    registered: tuple[tuple[str, str], ...]


def last_name(node):
    if isinstance(node, ast.Subscript):  # of LinearSolver[State]: LinearSolver
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def registration(node):
    """(kind, name) of a call `register(kind, name)`, else None."""
    if not isinstance(node, ast.Call) or last_name(node.func) != "register":
        return None
    values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return tuple(values) if len(values) == 2 else None


def trees():
    return [ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))]


def classes():
    found = []
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                named = filter(None, map(registration, node.decorator_list))
                methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                bases = tuple(last_name(base) for base in node.bases)
                found.append(Class(node.name, bases, frozenset(methods), tuple(named)))
    return found


CLASSES = classes()
WRITTEN = sorted({r for tree in trees() for r in map(registration, ast.walk(tree)) if r})
KINDS = sorted({kind for kind, _ in WRITTEN})


class Alone(NamedTuple):
    """What a process has after importing the package alone."""

    registered: list[list[str]]
    modules: list[str]
    exported: list[str]


@pytest.fixture(scope="module")
def alone():
    code = (
        "import json, sys, keras_qnewton\n"
        "from keras_qnewton.registry import names\n"
        f"registered = [(kind, name) for kind in {KINDS} for name in names(kind)]\n"
        "print(json.dumps([registered, list(sys.modules), keras_qnewton.__all__]))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return Alone(*json.loads(made.stdout.splitlines()[-1]))


def test_importing_the_package_registers_what_its_modules_register(alone):
    assert sorted(map(tuple, alone.registered)) == WRITTEN
    assert set(EXPORTED_BY) <= set(KINDS)


def test_importing_the_package_does_not_load_the_quantum_stack(alone):
    assert "tensorflow" in alone.modules
    assert not {"cirq", "tensorflow_quantum"}.intersection(alone.modules)


def test_the_package_exports_what_users_need(alone):
    assert {"QNewton", "Scheduler", "Adaptive", "Constant", "NewtonLog"} <= set(alone.exported)


@pytest.mark.parametrize("kind", sorted(EXPORTED_BY))
def test_registered_classes_are_exported(kind):
    modules = map(importlib.import_module, EXPORTED_BY[kind])
    exported = {name for module in modules for name in module.__all__}
    missing = [
        cls.name for cls in CLASSES if kind in dict(cls.registered) and cls.name not in exported
    ]
    assert missing == []


def test_policies_are_registered():
    """A class that is made from its settings, and is nobody's base, goes by a name."""
    policies = {"Policy"}
    while True:
        more = {cls.name for cls in CLASSES if policies.intersection(cls.bases)} - policies
        if not more:
            break
        policies |= more
    bases = {base for cls in CLASSES for base in cls.bases}
    forgotten = {
        cls.name
        for cls in CLASSES
        if cls.name in policies - bases and policies.intersection(cls.bases) and not cls.registered
    }
    assert forgotten == NOT_BY_NAME


def test_estimators_are_registered():
    estimators = {
        cls.name
        for cls in CLASSES
        if "log_condition_number" in cls.methods and "Protocol" not in cls.bases
    }
    named = {cls.name for cls in CLASSES if "condition_number" in dict(cls.registered)}
    assert estimators == named


def test_cost_models_are_registered():
    """All classes that have `seconds` of a system, but the two that price what they are given."""
    priced = {
        cls.name
        for cls in CLASSES
        if "seconds" in cls.methods and "get_config" in cls.methods and not cls.registered
    }
    assert priced == {"FunctionCost", "QuantumCost"}
