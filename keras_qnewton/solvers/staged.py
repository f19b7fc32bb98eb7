"""The old place of `packing.Packed`."""

from keras_qnewton.solvers.packing import Packed

__all__ = ["Packed"]
