"""The page says what the tests' rows say."""

from tests.compatibility.cells import CELLS
from tests.compatibility.page import PAGE, page, rows


def test_the_page_has_these_rows():
    assert PAGE.read_text("utf-8") == page(), "run `python -m tests.compatibility`"


def test_no_row_is_left_out_or_twice():
    assert sorted(rows()) == sorted(set(CELLS))
