"""Arrays of one step take the pages that the step before has freed."""

import platform
import subprocess
import sys

import pytest

# Four arrays of 2.8 MB a turn, as rows of a model of a few hundred weights have them.
PROGRAM = """
import resource

import keras
import numpy as np

from keras_qnewton import QNewton

QNewton().build([keras.Variable(np.zeros(3))])


def turns(count):
    for _ in range(count):
        arrays = [np.ones(350_000) for _ in range(4)]
        del arrays


turns(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
turns(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's heap")
def test_pages_are_mapped_once():
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    pages_of_a_turn = 4 * 350_000 * 8 // 4096
    assert int(found.stdout.split()[-1]) < pages_of_a_turn
