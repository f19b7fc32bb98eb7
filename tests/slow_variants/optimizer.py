"""Variants that take long, of tests in tests/optimizer; see the package."""
# ruff: noqa: E501

SLOW_VARIANTS = {
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
}
