"""Figures of committed results, each drawn of the runs in files of `docs/measured`."""
