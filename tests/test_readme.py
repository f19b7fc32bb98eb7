"""README: its code runs, its links lead somewhere, it stays short."""

import re

import pytest

from tests.pages import ROOT, blocks, broken_links, run

README = ROOT / "README.md"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


def test_readme_sample_prints_what_readme_says(capsys, tmp_path):
    run(README, tmp_path)
    (promised,) = blocks(README, "text")
    printed = capsys.readouterr().out
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", promised)
    # Rounding on another machine may cost a digit of a small loss, not two.
    for value, said in zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True):
        assert 0.1 <= float(value) / float(said) <= 10


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    assert not broken_links(ROOT / name)
