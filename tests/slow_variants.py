"""Variants of tests that take long; others of the same test run in `make test`.

`make test-all` runs all of them. Each line is how the names of variants begin.
"""
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
    "curvature/test_ctc.py::test_every_form_of_the_loss_is_known": [
        "blank in the middle",
        "dense",
        "in a function",
        "keras",
        "unique",
    ],
    "curvature/test_fisher.py::test_fisher_equals_its_definition": [
        "sigmoid-",
    ],
    "curvature/test_fisher.py::test_low_rank_factors": [
        "full-bias_first-",
        "full-convolution_1d-",
        "full-convolution_2d-",
        "full-crossed-",
        "full-dense-",
        "full-sequence-",
        "layer-",
    ],
    "curvature/test_fisher.py::test_structured_blocks_are_used_and_equal_generic_products": [
        "False-",
        "True-convolution_1d-",
        "True-convolution_2d-",
        "True-decayed-",
        "True-dense-",
        "True-dilated",
        "True-normalised-",
    ],
    "curvature/test_gauss_newton.py::test_curvature_argument": [
        "huber-",
        "mse-",
    ],
    "curvature/test_gauss_newton.py::test_equals_its_definition": [
        "binary-",
        "categorical-",
        "squared-conv",
    ],
    "curvature/test_layer_pairs.py::test_product_equals_finite_differences": [
        "attention-",
        "average_pool1d-attention",
        "average_pool2d-",
        "bidirectional-",
        "conv1d-",
        "conv1d_transpose-layer_norm",
        "conv2d_transpose-group_norm",
        "depthwise_conv1d-batch_norm]",
        "depthwise_conv1d-separable_conv1d",
        "depthwise_conv2d-layer_norm",
        "group_norm-group_norm",
        "gru-",
        "lstm-",
        "simple_rnn-",
    ],
    "curvature/test_layers.py::test_blocks_are_diagonal_blocks_of_the_full_hessian": [
        "layer",
        "variable",
    ],
    "curvature/test_layers.py::test_float32_against_float64_with_sample_weights": [
        "float32_dropout",
    ],
    "curvature/test_layers.py::test_hessian_and_product_equal_finite_differences": [
        "attention",
        "average_pool1d",
        "average_pool2d",
        "batch_norm",
        "conv1d",
        "conv2d",
        "dense",
        "depthwise_conv1d",
        "depthwise_conv2d",
        "group_norm",
        "layer_norm",
        "max_pool1d",
        "max_pool2d",
        "rms_norm",
        "separable_conv1d",
        "separable_conv2d",
        "unit_norm",
    ],
    "curvature/test_layers.py::test_hessian_in_float32": [
        "attention",
        "batch_norm",
        "dense",
        "group_norm",
        "layer_norm",
    ],
    "curvature/test_layers.py::test_losses_equal_finite_differences": [
        "binary_crossentropy-",
        "categorical_crossentropy-",
        "sparse_crossentropy-logits",
    ],
    "curvature/test_layers.py::test_strided_pooling": [
        "same-",
        "valid-2",
    ],
    "curvature/test_loops.py::test_other_loops_suppose_nothing": [
        "examples_that_meet-",
        "growing-",
        "loop_in_a_loop-",
    ],
    "curvature/test_loops.py::test_recurrent_layers_have_rows": [
        "GRU",
        "LSTM, 100 steps",
        "LSTM, 28 steps",
        "dense",
        "more outputs than are passed back one by one",
        "stacked",
    ],
    "curvature/test_nested_functions.py::test_a_loss_in_a_called_function_is_that_in_line": [
        "two_terms-",
    ],
    "curvature/test_nested_functions.py::test_a_model_in_a_called_function_has_its_layers": [
        "silu",
    ],
    "curvature/test_outputs.py::test_products_and_roots_equal_the_hessian": [
        "Log",
        "sigmoid_cross_entropy",
        "softmax_cross_entropy",
    ],
    "curvature/test_parts_of_a_batch.py::test_equals_its_definition": [
        "classes_and_numbers",
        "differentiated",
        "gathered",
        "nested",
        "of_sequences",
        "rotated",
        "seen_twice",
        "slices",
        "split",
    ],
    "curvature/test_reach.py::test_equals_its_definition": [
        "Einstein sums",
        "GRU",
        "LSTM",
        "attention",
        "batch normalisation",
        "bidirectional",
        "contrastive",
        "convolutions",
        "depthwise convolutions",
        "dilated convolutions of sequences",
        "dilated convolutions]",
        "distance of two networks",
        "embedded positions",
        "integral",
        "joined weights",
        "log-",
        "one square",
        "other convolutions of volumes",
        "physics-",
        "products of parts",
        "time-",
        "transposed convolutions",
        "two heads",
        "two terms",
        "variational autoencoder",
    ],
    "curvature/test_recurrent.py::test_a_number_of_time_steps_known_only_at_run_time": [
        "SimpleRNN",
    ],
    "curvature/test_recurrent.py::test_curvature_equals_finite_differences": [
        "bidirectional",
        "gru",
        "lstm",
        "masked",
        "stacked",
    ],
    "curvature/test_rows_by_passes.py::test_a_batch_of_any_size": [
        "products",
        "rows",
    ],
    "curvature/test_rows_by_passes.py::test_equals_its_definition": [
        "columns-",
        "products-batch normalisation",
        "products-contrastive",
        "products-loop",
        "products-two batches",
        "products-whole batch",
        "rows-",
    ],
    "curvature/test_structured.py::test_assembled_blocks_equal_generic_ones": [
        "branches-",
        "dead_inputs-",
        "dropout-",
        "mlp-",
        "regularised-",
        "without_bias-full",
    ],
    "curvature/test_structured.py::test_the_block_is_right_either_way": [
        "branches",
        "coupled_examples",
        "dead_inputs",
        "dropout",
        "mlp",
        "quartic_regulariser",
        "shared_layer",
    ],
    "curvature/test_wrong_guesses.py::test_a_weak_dependence_beside_the_layers_is_not_lost_in_rounding": [
        "1e-",
        "2e-06",
    ],
    "curvature/test_wrong_guesses.py::test_gauss_newton_matrix": [
        "repeated",
        "segmentation",
        "step_by_step",
    ],
    "curvature/test_wrong_guesses.py::test_trains": [
        "repeated-",
        "reshaped_kernel-",
        "scale-2]",
        "segmentation-",
        "sequence_without_bias-",
        "step_by_step-",
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
    "optimizer/test_accumulation.py::test_four_batches_of_32_are_one_of_128": [
        "classes",
        "sample weights",
        "tokens",
        "two",
    ],
    "optimizer/test_accumulation.py::test_with_other_options_too": [
        "averages of weights",
        "blocks",
        "clipped",
        "fisher",
        "hessian",
        "kept",
        "learned",
    ],
    "optimizer/test_above_formed.py::test_settings_of_linear_systems_are_kept_to": [
        "blocks",
        "curvature0",
        "curvature1",
        "damping",
        "sparsity",
    ],
    "optimizer/test_above_formed.py::test_steps_on_data_that_change_are_newtons": [
        "400",
    ],
    "optimizer/test_batch_weights.py::test_a_step_weighs_as_its_batch_has_examples": [
        "mean-",
    ],
    "optimizer/test_classical_routes.py::test_auto_has_no_host_call": [
        "auto-",
    ],
    "optimizer/test_classical_routes.py::test_the_chosen_route_solves": [
        "lapack",
    ],
    "optimizer/test_cut_back.py::test_a_step_ends_where_the_damped_model_is_lowest_along_it": [
        "((1, 3), 1e-",
        "((2, 2), 1.0)",
        "((3, 2, 1), 0.01)",
    ],
    "optimizer/test_cut_back.py::test_blocks_that_agree_take_their_share_each": [
        "3",
        "5",
    ],
    "optimizer/test_formed_by.py::test_layers_too_wide_for_all_examples_at_once": [
        "arguments2",
    ],
    "optimizer/test_formed_by.py::test_says_how_and_why": [
        "convolution",
        "dense",
        "examples interact",
        "large",
        "loop",
        "not linear",
        "one root",
    ],
    "optimizer/test_gradient_check.py::test_edited_gradients_are_refused_before_any_weight_changes": [
        "clipped",
        "masked",
        "noised",
        "of another loss",
        "of twice the loss",
        "swapped",
    ],
    "optimizer/test_gradient_check.py::test_training_to_convergence_raises_no_alarm": [
        "layer norm-float32-options1",
        "plain-mixed_bfloat16-options0",
    ],
    "optimizer/test_graph_size.py::test_operations_of_a_step": [
        "attention",
        "convolution",
        "lstm",
        "perceptron",
    ],
    "optimizer/test_kept_factor.py::test_as_many_factorisations_as_systems": [
        "cholesky]",
        "eigen",
        "ldl",
        "mini-",
        "mixed",
    ],
    "optimizer/test_keras_contract.py::test_a_losss_reduction_changes_no_step": [
        "sum",
    ],
    "optimizer/test_keras_contract.py::test_compile_options": [
        "{'jit_compile': True}",
    ],
    "optimizer/test_keras_contract.py::test_layers_train": [
        "batch norm",
        "constraint",
    ],
    "optimizer/test_lengthening.py::test_no_leap_without_a_trust_ratio_or_on_changing_data": [
        "constant",
    ],
    "optimizer/test_loss_scale.py::test_a_factor_of_the_loss_changes_no_step": [
        "by layers-",
        "cross-",
        "not formed, indefinite-",
        "not formed-",
        "saddle-",
        "shift-",
        "woodbury-",
    ],
    "optimizer/test_loss_scale.py::test_an_extreme_factor_of_the_loss_is_taken_out": [
        "dense inverse-",
        "limited memory-",
    ],
    "optimizer/test_low_rank.py::test_formed_where_somebody_has_to_see_it": [
        "kept",
    ],
    "optimizer/test_low_rank.py::test_half_as_many_rows_as_weights_are_few": [
        "147",
    ],
    "optimizer/test_low_rank.py::test_losses_are_those_of_formed_blocks": [
        "fisher",
    ],
    "optimizer/test_low_rank.py::test_two_heads_train_as_formed_blocks_do": [
        "auto",
    ],
    "optimizer/test_no_curvature.py::test_a_linear_model_comes_near_the_lowest_loss": [
        "epsilon-",
        "hinge",
    ],
    "optimizer/test_no_curvature.py::test_no_route_needs_curvature": [
        "blocks",
        "not formed",
    ],
    "optimizer/test_no_curvature.py::test_small_batches_train": [
        "hinge",
    ],
    "optimizer/test_no_curvature.py::test_the_distance_to_zero_is_one_step_along_an_absolute_value": [
        "1.0",
        "100000000.0",
        "1e-08",
    ],
    "optimizer/test_refusals.py::test_a_log_that_was_saved_earlier_has_no_attempts": [
        "1.0",
    ],
    "optimizer/test_refused_steps.py::test_a_rate_that_is_not_finite_is_an_error_where_weights_decay_by_it": [
        "inf-quasi-",
        "nan-quasi-",
    ],
    "optimizer/test_refused_steps.py::test_a_step_at_a_rate_that_is_not_finite_is_refused_and_told": [
        "inf-quasi-",
        "nan-",
    ],
    "optimizer/test_refused_steps.py::test_a_weight_that_is_not_finite_is_named_where_the_loss_hides_it": [
        "quasi-",
    ],
    "optimizer/test_refused_steps.py::test_training_goes_on_as_if_the_bad_batch_had_not_been": [
        "dense",
        "full batch-",
        "layers, kept-",
    ],
    "optimizer/test_rescaled.py::test_units_of_weights_change_no_loss": [
        "auto-auto",
        "variable-",
    ],
    "optimizer/test_rescaled.py::test_weights_of_very_different_scales_converge": [
        "auto",
    ],
    "optimizer/test_robustness.py::test_constant_damping_goes_downhill_where_it_is_asked_to": [
        "False-",
    ],
    "optimizer/test_spectrum.py::test_nonzeros_of_rows_counted_a_few_at_a_time": [
        "False-12",
        "False-13",
        "False-21",
        "True-12",
        "True-13",
        "True-21",
    ],
    "optimizer/test_step.py::test_adaptive_step_by_hand": [
        "absolute",
    ],
    "optimizer/test_step.py::test_block_over_the_cap_is_logged_and_every_weight_moves": [
        "gauss_newton-",
    ],
    "optimizer/test_step.py::test_fit_lowers_the_loss_in_every_accepted_step": [
        "{'sparsity': 3, 'damping': Adaptive(initial=0.01, negative_curvature='shift', retries=5, memory=20, scaling='auto')}",
        "{'update_every': 3}",
    ],
    "optimizer/test_step.py::test_not_finite_is_an_error_before_any_weight_changes": [
        "nan input",
    ],
    "optimizer/test_step.py::test_nothing_is_traced_again_after_the_first_step": [
        "arguments1",
    ],
    "optimizer/test_step.py::test_step_that_forms_nothing_equals_the_dense_one": [
        "hessian-",
    ],
    "optimizer/test_woodbury.py::test_solution_with_a_diagonal": [
        "one",
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
    "scheduling/test_costs.py::test_a_slow_reading_later_on_changes_nothing": [
        "1",
    ],
    "scheduling/test_costs.py::test_measures_the_shortest_reading_of_every_size": [
        "float64-lu",
    ],
    "scheduling/test_estimator.py::test_condition_number_is_the_estimators": [
        "lanczos-",
        "norm_det-",
    ],
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
