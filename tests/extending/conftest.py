"""A third party's package: one module, imported as a user would, and forgotten after the test."""

from __future__ import annotations

import contextlib
import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from keras_qnewton import registry

PACKAGE = "third_party"


@contextlib.contextmanager
def third_party(path: Path) -> Iterator[Callable[..., ModuleType]]:
    """From a module's name and source to the module, imported from a package on `sys.path`.

    What it registers is gone afterwards, and so are its modules.
    """
    with pytest.MonkeyPatch.context() as patch:
        known = {kind: dict(entries) for kind, entries in registry._REGISTRY.items()}
        patch.setattr(registry, "_REGISTRY", known)
        patch.setattr(sys, "path", [str(path), *sys.path])
        folder = path / PACKAGE
        folder.mkdir()
        (folder / "__init__.py").touch()

        def imported(name: str, source: str) -> ModuleType:
            (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
            importlib.invalidate_caches()
            return importlib.import_module(f"{PACKAGE}.{name}")

        yield imported
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture
def extension(tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """`third_party` during a test."""
    with third_party(tmp_path) as imported:
        yield imported
