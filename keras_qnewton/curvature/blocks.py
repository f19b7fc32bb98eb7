"""How the weights are divided into diagonal blocks of the Hessian.

    w = (w_1, ..., w_K),  w_k in R^{N_k};      H ~ diag(H_1, ..., H_K),  H_k [N_k, N_k]

A block's weights are its variables, flattened row-major and concatenated in order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from keras_qnewton.arguments import check_choice, check_count, refused
from keras_qnewton.registry import Policy, register

PARTITIONS = ("auto", "full", "layer", "variable")


class Variable(Protocol):
    """A `tf.Variable` or a `keras.Variable`."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Sequence[int]: ...


class Block(NamedTuple):
    """One diagonal block of the Hessian.

    Attributes:
        matrix: `[N, N]`, symmetric, dtype of the variables.
        gradient: `[N]`, the loss's gradient in the block's weights.
        variables: The block's variables, in the order of the rows of `matrix`.
    """

    matrix: tf.Tensor
    gradient: tf.Tensor
    variables: list[Variable]


@dataclasses.dataclass(frozen=True)
class Part:
    """One block of a partition.

    Attributes:
        name: The variable's or layer's path, or "full".
        indices: Which variables, by position.
        size: N, the number of weights.
        dense: Whether the block is small enough to be formed; otherwise its systems are
            solved with Hessian-vector products alone.
    """

    name: str
    indices: tuple[int, ...]
    size: int
    dense: bool


@register("blocks", "auto")
@keras.saving.register_keras_serializable(package="keras_qnewton")
class Blocks(Policy):
    """Divides the variables into Hessian blocks.

    Args:
        partition: "full": one block; "layer": one a layer (successive variables whose path is
            the same up to its last component); "variable": one a variable; "auto": "full". One
            block costs less than many where it is too large to be formed, and its steps reach
            lower losses.
        max_size: Largest N of a block that is formed as a matrix, N² numbers. A larger one is
            solved in as many dimensions as its rank on a small batch (Gauss-Newton and Fisher
            matrices), else by conjugate gradients on curvature-vector products, or not solved but
            learned (`QNewton(curvature="auto")` on data that stay). One that could
            be formed is solved in as many dimensions as its rank, too, if that is at most N/2 and
            nobody has to see the matrix.

    Raises:
        ValueError: If an argument is not one of these.
    """

    def __init__(self, partition: str = "auto", max_size: int = 2048):
        self.partition = check_choice("partition", partition, PARTITIONS)
        self.max_size = check_count("max_size", max_size, what="a number of weights")

    def split(self, variables: Sequence[Variable]) -> list[Part]:
        """The blocks of `variables` (`tf.Variable` or `keras.Variable`)."""
        sizes = [math.prod(int(n) for n in v.shape) for v in variables]
        partition = "full" if self.partition == "auto" else self.partition
        paths = _paths(variables)
        groups: list[tuple[str, list[int]]] = []
        for k, path in enumerate(paths):
            if not groups or _starts_group(path, groups[-1], paths, partition):
                groups.append((_group_name(path, partition), []))
            groups[-1][1].append(k)
        parts = []
        for name, indices in _distinct(groups):
            size = sum(sizes[k] for k in indices)
            parts.append(Part(name, tuple(indices), size, dense=size <= self.max_size))
        return parts

    def get_config(self) -> dict[str, str | int]:
        return {"partition": self.partition, "max_size": self.max_size}


def blocks_of(given: str | Blocks) -> Blocks:
    """The policy that an argument `blocks` stands for; one of the user's own is kept.

    Raises:
        ValueError: If it is no name of a partition, and no policy.
    """
    if isinstance(given, str):
        return Blocks(check_choice("blocks", given, PARTITIONS))
    if isinstance(given, (type, bytes)) or not hasattr(given, "split"):
        names = ", ".join(map(repr, PARTITIONS))
        wanted = f"one of {names}, or a `Blocks` object: one that has `split`"
        raise refused("blocks", given, wanted)
    return given


def _paths(variables: Sequence[Variable]) -> list[tuple[str, ...]]:
    """Each variable's path; without the model's own name, which a loaded model has not."""
    paths = [
        tuple((getattr(v, "path", None) or v.name.split(":")[0]).split("/")) for v in variables
    ]
    shared = {path[0] for path in paths}
    if len(shared) == 1 and all(len(path) > 2 for path in paths):
        paths = [path[1:] for path in paths]
    return paths


def _starts_group(
    path: tuple[str, ...],
    group: tuple[str, list[int]],
    paths: Sequence[tuple[str, ...]],
    partition: str,
) -> bool:
    """Whether the variable is not one of the group of the variable before it.

    A layer's variables come one after the other. Two layers of one name (in submodels, whose
    names saving drops) are told apart by a leaf name that occurs again.
    """
    if partition == "full":
        return False
    if partition == "variable" or len(path) == 1:
        return True
    members = [paths[k] for k in group[1]]
    return path[:-1] != members[-1][:-1] or path in members


def _group_name(path: tuple[str, ...], partition: str) -> str:
    if partition == "full":
        return "full"
    return "/".join(path if partition == "variable" or len(path) == 1 else path[:-1])


def _distinct(groups: Sequence[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """The groups, the second of a name called name#2, and so on."""
    seen: dict[str, int] = {}
    out = []
    for name, indices in groups:
        seen[name] = seen.get(name, 0) + 1
        out.append((name if seen[name] == 1 else f"{name}#{seen[name]}", indices))
    return out
