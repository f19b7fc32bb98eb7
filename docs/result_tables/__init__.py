"""Tables of committed results, each made of the runs in a file of `docs/measured`."""
