"""A third party's package: one module, imported as a user would, and forgotten after the test."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from keras_qnewton import registry

PACKAGE = "third_party"


@pytest.fixture
def extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., ModuleType]]:
    """From a module's name and source to the module, imported from a package on `sys.path`.

    What it registers is gone after the test, and so are its modules.
    """
    known = {kind: dict(entries) for kind, entries in registry._REGISTRY.items()}
    monkeypatch.setattr(registry, "_REGISTRY", known)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()

    def imported(name: str, source: str) -> ModuleType:
        (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(f"{PACKAGE}.{name}")

    yield imported
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
