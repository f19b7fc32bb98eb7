"""Variants that take long, of tests in all other folders; see the package."""
# ruff: noqa: E501

SLOW_VARIANTS = {
    "conditioning/test_condition_number.py::test_close_to_the_true_one": [
        "False-2-float32-1000.0-lanczos",
        "False-7-float32-1000.0-lanczos",
        "False-7-float64-1000.0-lanczos",
    ],
    "conditioning/test_noise.py::test_steps_are_shared_where_the_data_change_and_only_there": [
        "batches",
    ],
    "extending/test_host_solver.py::test_it_solves_every_step_of_fit": [
        "mine",
    ],
    "extending/test_loss_rule.py::test_fit_assembles_blocks_and_the_loss_falls": [
        "log_cosh",
    ],
    "loss/test_control_flow.py::test_hessian_equals_finite_differences": [
        "case",
        "condition_in_loop",
        "condition_on_data",
        "condition_on_weights",
        "dynamic_loop",
        "dynamic_scan",
        "function_in_loop",
        "gradient_of_a_loop",
        "long_loop",
        "loop_until_small",
        "nested_loop",
        "scan",
        "static_loop",
    ],
    "loss/test_control_flow.py::test_product_equals_finite_differences": [
        "condition_on_weights",
    ],
    "loss/test_control_flow.py::test_replay_at_other_weights": [
        "condition_in_loop",
        "condition_on_weights",
        "dynamic_loop",
        "dynamic_scan",
        "function_in_loop",
        "known_condition",
        "map_rows",
        "nested_loop",
        "scan",
        "static_loop",
    ],
    "loss/test_custom_gradients.py::test_a_given_gradient_is_replayed_wherever_the_function_is": [
        "called",
        "in_a_condition",
        "in_a_known_loop",
        "in_an_unknown_loop",
    ],
    "loss/test_custom_gradients.py::test_a_given_gradient_of_hidden_operations_has_its_second_derivative": [
        "called",
        "in_a_condition",
        "in_an_unknown_loop",
        "once",
    ],
    "loss/test_custom_gradients.py::test_activations_are_as_exact_as_before": [
        "celu",
        "log_softmax",
        "mish",
        "silu",
        "sparsemax",
        "squareplus",
    ],
    "loss/test_custom_gradients.py::test_an_override_map_counts_where_tapes_follow_it": [
        "in_a_condition",
        "in_an_unknown_loop",
    ],
    "loss/test_custom_gradients.py::test_recomputed_gradients_are_exact": [
        "called",
        "in_a_condition",
        "in_a_known_loop",
        "in_an_unknown_loop",
    ],
    "loss/test_fingerprint.py::test_one_changed_element_changes_it": [
        "float16",
    ],
    "loss/test_forms.py::test_forms_are_run_in_bodies_too": [
        "lookup, mean-in_a_condition",
        "lookup, mean-in_a_loop",
        "nearest-in_a_condition",
        "nearest-in_a_loop",
        "places of maxima-in_a_condition",
        "places of maxima-in_a_loop",
        "softsign-in_a_loop",
    ],
    "loss/test_forms.py::test_values_are_tensorflows": [
        "double",
    ],
    "loss/test_in_line.py::test_the_exact_hessian_is_that_of_the_loss_written_out": [
        "gelu",
        "silu",
    ],
    "loss/test_recorded.py::test_replay_at_the_same_weights_is_the_same_loss": [
        "plain",
    ],
    "quasi_newton/test_dense.py::test_inverse_stays_positive_definite_and_meets_the_secant_equation": [
        "bfgs",
        "ssbfgs",
    ],
    "quasi_newton/test_dense.py::test_updates_are_inverses_of_the_direct_formula": [
        "ssbroyden",
    ],
    "quasi_newton/test_line_search.py::test_a_graph_evaluates_in_one_place": [
        "False",
    ],
    "quasi_newton/test_step.py::test_learning_rate_is_a_factor_of_the_step_that_is_tried_first": [
        "0.25",
    ],
    "quasi_newton/test_step.py::test_minimum_is_found": [
        "ssbfgs",
        "ssbroyden",
    ],
    "quasi_newton/test_step.py::test_no_step_raises_the_loss": [
        "float32",
    ],
    "quasi_newton/test_step.py::test_resumed_training_is_bit_for_bit_the_same": [
        "lbfgs",
    ],
    "quasi_newton/test_step.py::test_the_scale_of_the_loss_is_learned": [
        "1e-",
    ],
    "scheduling/test_calibration.py::test_a_slow_reading_later_on_changes_nothing": [
        "1",
    ],
    "scheduling/test_calibration.py::test_measures_the_shortest_reading_of_every_size": [
        "float64-lu",
    ],
    "scheduling/test_estimator.py::test_condition_number_is_the_estimators": [
        "lanczos-",
        "norm_det-",
    ],
    "test_audit.py::test_healthy_layers_pass": [
        "float32-batch norm",
        "float32-dropout and kinks",
        "float32-layer norm and penalty",
        "float64-batch norm",
        "float64-layer norm and penalty",
    ],
    "compatibility/test_files.py::test_backup_and_restore": [
        "epoch",
    ],
    "test_explain.py::test_says_why_the_hessian_is_exact": [
        "cosine_similarity",
    ],
    "test_memory.py::test_graphs_of_a_dropped_model_are_collected": [
        "convolution-",
        "perceptron-",
    ],
    "test_memory.py::test_shared_gradients_are_neither_kept_nor_freed_twice": [
        "a_tanh-",
        "shared_by_a_term-",
        "shared_by_both_terms-",
        "shared_thrice-True",
        "with_a_source_given_twice-",
    ],
    "test_quasi_newton_benchmark.py::test_a_problem_starts_the_same_for_the_same_seed": [
        "allen_cahn",
        "burgers",
    ],
    "test_random_problems.py::test_no_step_raises_the_loss": [
        "barrier",
    ],
    "test_virtual_clock.py::test_break_even_is_where_the_prices_meet": [
        "cost1",
    ],
}
