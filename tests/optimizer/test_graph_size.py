"""How many operations a step's graph has: what users wait for at the first step.

Seconds cannot be asserted; they grow with the operations, by somewhat less than a millisecond each.
"""

import pathlib
import sys

import keras
import pytest

from keras_qnewton import QNewton

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
from problems.first_steps import NEWCOMERS, batches, operations, train_function

# A tenth above what there is.
MOST = {
    "perceptron": 5_350,
    "curve": 5_000,
    "convolution": 6_050,
    "lstm": 9_850,
    "attention": 10_250,
}


@pytest.mark.parametrize("model", NEWCOMERS)
def test_operations_of_a_step(model):
    newcomer = NEWCOMERS[model]()
    step = train_function(newcomer, QNewton())
    graph = step.get_concrete_function(batches(newcomer)).graph
    definition = graph.as_graph_def()
    kinds = {node.op for node in definition.node}
    kinds |= {node.op for function in definition.library.function for node in function.node_def}
    assert not kinds & {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
    assert operations(graph) <= MOST[model]
    keras.backend.clear_session()
