"""README: its code runs, its links lead somewhere, it stays short."""

import pytest

from tests.pages import ROOT, blocks, broken_links, run, same_but_for_rounding

README = ROOT / "README.md"


def test_readme_sample_prints_what_readme_says(capsys, tmp_path):
    run(README, tmp_path)
    (promised,) = blocks(README, "text")
    assert same_but_for_rounding(capsys.readouterr().out, promised)


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("loss 2e-07 after 20 steps", True),
        ("loss 2e-05 after 20 steps", False),
        ("loss 7e-07 after 0 steps", False),
        ("loss nan after 20 steps", False),
        ("losses 7e-07 after 20 steps", False),
    ],
)
def test_a_digit_may_be_lost_to_rounding(printed, same):
    assert same_but_for_rounding(printed, "loss 7e-07 after 20 steps") == same


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    assert not broken_links(ROOT / name)
