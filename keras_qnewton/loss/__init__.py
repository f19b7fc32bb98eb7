"""Where the loss, as a function of the weights, comes from.

`RecordedLoss` takes the loss tensor that a traced train step has just computed and runs
its operations again for other weights: the same batch, the same dropout masks.
`record` gets there from a user's own `loss_fn`, `losses_of` from gradients alone.
"""

from keras_qnewton.loss.batch_size import BatchSize, batch_size
from keras_qnewton.loss.closure import as_tensors, check_real, record, with_gradients
from keras_qnewton.loss.fingerprint import has_constant_data
from keras_qnewton.loss.found import losses_of
from keras_qnewton.loss.in_line import with_calls_in_line
from keras_qnewton.loss.of_train_step import loss_of_train_step
from keras_qnewton.loss.other_data import at_data, data_of
from keras_qnewton.loss.recorded import LossNotReplayableError, RecordedLoss, in_graph_of
from keras_qnewton.loss.summed import SummedLoss
from keras_qnewton.loss.tape_gradients import are_the_tapes
from keras_qnewton.loss.unscaled import UnscaledLoss, before_a_branch

__all__ = [
    "BatchSize",
    "LossNotReplayableError",
    "RecordedLoss",
    "SummedLoss",
    "UnscaledLoss",
    "are_the_tapes",
    "as_tensors",
    "at_data",
    "batch_size",
    "before_a_branch",
    "check_real",
    "data_of",
    "has_constant_data",
    "in_graph_of",
    "loss_of_train_step",
    "losses_of",
    "record",
    "with_calls_in_line",
    "with_gradients",
]
