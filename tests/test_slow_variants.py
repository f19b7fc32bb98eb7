"""The list of slow variants names tests that there are, and leaves some of each."""

import pathlib
import subprocess
import sys

import pytest

from tests.slow_variants import SLOW_VARIANTS

TESTS = pathlib.Path(__file__).parent


@pytest.mark.slow
def test_each_is_a_variant_among_others():
    files = sorted({str(TESTS / name.partition("::")[0]) for name in SLOW_VARIANTS})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "slow or not slow"]
    listed = subprocess.run([*command, *files], capture_output=True, text=True, check=True).stdout
    for name, begins in SLOW_VARIANTS.items():
        lines = [line for line in listed.splitlines() if f"{name}[" in line]
        variants = [line.partition("[")[2] for line in lines]
        for begin in begins:
            assert any(variant.startswith(begin) for variant in variants), (name, begin)
        assert any(not variant.startswith(tuple(begins)) for variant in variants), name
