"""Writes the page."""

from tests.compatibility.page import PAGE, page

PAGE.write_text(page(), "utf-8")
