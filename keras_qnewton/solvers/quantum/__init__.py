"""Solving on a quantum computer, or on its simulation: from 1/x to a circuit and back.

polynomial.py      1/x on [1/κ, 1] as an odd polynomial bounded on [-1, 1]
phases.py          the polynomial as a sequence of rotations (quantum signal processing)
transforms.py      both of them for one κ and accuracy, scaled and cached
gates.py           circuits as plain data
encodings/         the matrix as a corner of a unitary
backends/          the only places that know a quantum library
readout.py         from a circuit to numbers: exact amplitudes, or estimates from shots
resources.py       what a circuit costs: qubits, gates, depth, T gates, seconds
qsvt.py            the solver: circuit runs and float64 refinement around them
host.py            the one host call through which a graph reaches it
"""
