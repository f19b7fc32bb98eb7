"""Variants that take long, of tests in tests/solvers; see the package."""

SLOW_VARIANTS = {
    "solvers/test_absolute.py::test_solution_is_numpys": [
        "cirq-16-refined",
        "cirq-3-refined",
    ],
    "solvers/test_backend_choice.py::test_emulator_equals_the_circuit": [
        "definite-8-fable",
    ],
    "solvers/test_blocked_cholesky.py::test_a_matrix_that_is_not_definite_has_a_solution_of_nan": [
        "row 0",
    ],
    "solvers/test_blocked_cholesky.py::test_backward_error_is_lapacks": [
        "1000-",
        "1025-",
        "700-float64-",
    ],
    "solvers/test_classical.py::test_compiles_with_xla": [
        "Eigen()",
    ],
    "solvers/test_classical.py::test_lu_in_a_graph_tells_what_it_cannot_factorise": [
        "float32-512",
    ],
    "solvers/test_classical.py::test_only_a_residual_that_asks_for_it_is_refined": [
        "LU",
    ],
    "solvers/test_encodings.py::test_corner_of_its_circuit": [
        "pauli_lcu",
    ],
    "solvers/test_encodings.py::test_hessian_of_a_trained_layer": [
        "0-dilation",
    ],
    "solvers/test_encodings.py::test_newton_step_of_a_trained_layer": [
        "sparse-block6",
    ],
    "solvers/test_encodings.py::test_solves_systems": [
        "one-8-definite-fable",
        "one-8-indefinite-pauli_lcu",
    ],
    "solvers/test_mixed_precision.py::test_logged_condition_number_with_the_papers_shift": [
        "-",
    ],
    "solvers/test_mixed_precision.py::test_rows_of_zeros_are_not_factorised": [
        "0",
    ],
    "solvers/test_mixed_precision.py::test_solution_is_that_of_double_precision": [
        "1.0-256",
        "1.0-600",
        "1e-30-5",
        "1e-30-600",
    ],
    "solvers/test_qsvt.py::test_refined_solution_is_scipys": [
        "2-200-",
        "32-200-",
        "5-200-",
        "64-50-",
        "8-50-indefinite",
    ],
    "solvers/test_solvers.py::test_packed_factors_solve_like_those_they_were": [
        "cholesky-float32-385",
        "cholesky-float32-700",
        "cholesky-float64-700",
        "eigen-float32-384",
        "eigen-float32-385",
        "ldl-float32-384",
        "ldl-float32-385",
        "ldl-float32-700",
        "ldl-float64-385",
        "ldl-float64-700",
        "lu-float32-700",
    ],
    "solvers/test_solvers.py::test_solution_is_scipys": [
        "cg-definite-float32-1-graph",
        "hhl-definite-float32-16-eager",
        "hhl-definite-float64-16-graph",
        "hhl-definite-float64-2-graph",
        "hhl-definite-float64-5-graph",
        "hhl-indefinite-float32-5-eager",
        "hhl-indefinite-float64-2-eager",
        "hhl-indefinite-float64-5-eager",
    ],
    "solvers/test_solvers.py::test_solution_scales_with_the_system": [
        "qsvt-",
    ],
    "solvers/test_solvers.py::test_state_serves_several_right_hand_sides": [
        "hhl",
    ],
    "solvers/test_tfq.py::test_a_second_solve_serialises_nothing": [
        "frobenius",
    ],
    "solvers/test_tfq.py::test_single_run": [
        "frobenius-16-",
    ],
    "solvers/test_tfq.py::test_two_refinements": [
        "dilation-16-200-",
        "dilation-8-",
    ],
}
