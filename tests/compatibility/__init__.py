"""Keras's contract cell by cell: what works with QNewton, and what is refused with which words.

Each test is a row of `docs/compatibility.md`. After a change of rows, write the page anew:

    python -m tests.compatibility
"""
