"""Solving on a quantum computer, or on its simulation: from 1/x to a circuit and back.

chebyshev.py       a polynomial: values in closed form, and its Chebyshev series
inverse_polynomial.py  1/x on [1/κ, 1] as an odd polynomial bounded on [-1, 1]
smoothed.py        1/√(x² + λ²) as an even one: saddle-free Newton's function
kernel_polynomial.py  1 at 0 and small on [Δ, 1] as an even one: the shortcut's
damped_polynomial.py  λ/(x² + λ) and x/(x² + λ): damped least squares'
phases.py          a polynomial as a sequence of rotations (quantum signal processing)
transforms.py      polynomial and phases for one κ or λ and accuracy, scaled and cached
gates.py           circuits as plain data
partial.py         multiplexed rotations and states with one rotation an angle that matters
encodings/         the matrix as a corner of a unitary
backends/          the only places that know a quantum library
readout.py         from a circuit to numbers: exact amplitudes, or estimates from shots
resources.py       the cost of a circuit: qubits, gates, depth, T gates, seconds
circuit_runs.py    what whoever runs circuits has: backend, readout, accuracy
encoded_solver.py  base of the solvers of A x = b by such circuits
qsvt.py            the solver by 1/x: circuit runs and float64 refinement around them
shortcut.py        the solver by kernel reflection; with kernel_problem.py and solution_norm.py
damped_least_squares.py  (UᵀU + λI)^-1 g from the rows U, not square; with damped_depth.py
absolute.py        (H² + λ²I)^(-1/2) g by circuits: its refinement, and its check
inexact.py         base of the solvers: inexact runs on the host, refined by their residuals
refined.py         runs combined, or added up
measured.py        α and layers of a matrix in an encoding, in a graph; with pattern_depth.py
reference.py       base of those for comparison: hhl.py, and adiabatic.py (experimental)
host.py            the one host call through which a graph reaches it
"""
