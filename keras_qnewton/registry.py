"""Names for policies: a string for the default, an object for control.

A leaf. Every stage registers its own implementations when it is imported, so that
`Scheduler(quantum="qsvt")` can name a solver without scheduling importing solvers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

# A class, or a function without arguments that makes an object.
_T = TypeVar("_T", bound=Callable[..., Any])


class Policy:
    """A settings object that can be made again from its constructor's arguments."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The policy that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return call_text(self, self.get_config())


def call_text(made: object, arguments: Mapping[str, Any]) -> str:
    """The call that makes an object of these arguments."""
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{type(made).__name__}({given})"


_REGISTRY: dict[str, dict[str, Callable[..., Any]]] = {}


def register(kind: str, name: str) -> Callable[[_T], _T]:
    """Class decorator: makes `resolve(kind, name)` build this class with its defaults."""

    def add(cls: _T) -> _T:
        _REGISTRY.setdefault(kind, {})[name] = cls
        return cls

    return add


def registered(kind: str) -> Mapping[str, Callable[..., Any]]:
    """By name, what is registered of one kind, in the order of registration."""
    return MappingProxyType(_REGISTRY.get(kind, {}))


def names(kind: str) -> tuple[str, ...]:
    """The registered names of one kind, sorted."""
    return tuple(sorted(_REGISTRY.get(kind, {})))


def resolve(kind: str, value: Any, argument: str, needs: Sequence[str] = ()) -> Any:
    """The policy object for `value`: built from its name, or returned as it is.

    Args:
        kind: The policy's purpose: "solver", "cost", "damping", ...
        value: A registered name, or a policy object (anything that is not a string).
        argument: Name of the caller's argument, for the error message.
        needs: Methods that an object must have.

    Raises:
        ValueError: If `value` is a string that no policy of this kind goes by, or an object
            without a method that is needed.
    """
    if not isinstance(value, str):
        if needs and (isinstance(value, type) or not all(hasattr(value, n) for n in needs)):
            raise ValueError(
                f"Argument `{argument}` must be {_names_text(kind)} or an object with "
                f"{', '.join(f'`{name}`' for name in needs)}. Received: {argument}={value!r}"
            )
        return value
    try:
        cls = _REGISTRY.get(kind, {})[value]
    except KeyError:
        raise ValueError(
            f"Argument `{argument}` must be {_names_text(kind)} or an object. "
            f"Received: {argument}={value!r}"
        ) from None
    return cls()


def _names_text(kind: str) -> str:
    """The registered names for a message."""
    known = ", ".join(repr(name) for name in names(kind))
    return f"one of {known}," if known else "a registered name"
