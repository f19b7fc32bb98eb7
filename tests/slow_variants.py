"""Variants of tests that take long; others of the same test run in `make test`.

`make test-all` runs all of them. Each line is how the names of variants begin.
"""

SLOW_VARIANTS = {
    "curvature/test_fisher.py::test_structured_blocks_are_used_and_equal_generic_products": [
        "False-convolution_1d",
        "False-decayed",
        "False-dilated",
        "False-normalised",
        "False-sequence",
        "True-convolution_1d-EmpiricalFisher",
        "True-decayed-EmpiricalFisher",
        "True-dense-EmpiricalFisher",
        "True-dilated",
        "True-normalised-EmpiricalFisher",
    ],
    "curvature/test_loops.py::test_recurrent_layers_have_rows": ["GRU", "dense", "stacked"],
    "curvature/test_reach.py::test_equals_its_definition": [
        "GRU",
        "bidirectional",
        "dilated convolutions of sequences",
        "other convolutions of volumes",
    ],
    "curvature/test_recurrent.py::test_a_number_of_time_steps_known_only_at_run_time": [
        "SimpleRNN"
    ],
    "curvature/test_recurrent.py::test_curvature_equals_finite_differences": [
        "bidirectional",
        "gru",
        "stacked",
    ],
    "curvature/test_structured.py::test_assembled_blocks_equal_generic_ones": [
        "branches-variable",
        "mlp-variable",
    ],
    "curvature/test_structured.py::test_blocks_of_many_inputs_equal_those_of_few": ["variable"],
    "curvature/test_wrong_guesses.py::test_trains": [
        "repeated-2048",
        "reshaped_kernel-2048",
        "sequence_without_bias-2048",
        "step_by_step-2048",
    ],
    "optimizer/test_above_formed.py::test_steps_on_data_that_change_are_newtons": ["400"],
    "optimizer/test_formed_by.py::test_layers_too_wide_for_all_examples_at_once": ["arguments2"],
    "optimizer/test_gradient_check.py::test_training_to_convergence_raises_no_alarm": [
        "layer norm-float32-options1",
        "plain-mixed_bfloat16-options0",
    ],
    "optimizer/test_graph_size.py::test_operations_of_a_step": ["attention", "lstm"],
    "optimizer/test_kept_factor.py::test_as_many_factorisations_as_systems": ["eigen", "ldl"],
    "optimizer/test_keras_contract.py::test_a_losss_reduction_changes_no_step": ["sum"],
    "optimizer/test_loss_scale.py::test_a_factor_of_the_loss_changes_no_step": [
        "by layers-float64",
        "cross-entropy-float64",
        "not formed-float64",
        "saddle-free-float64",
        "shift-float64",
    ],
    "optimizer/test_low_rank.py::test_losses_are_those_of_formed_blocks": ["fisher"],
    "optimizer/test_low_rank.py::test_two_heads_train_as_formed_blocks_do": ["auto"],
    "optimizer/test_low_rank.py::test_two_heads_with_penalties": ["quartic"],
    "optimizer/test_no_curvature.py::test_a_linear_model_comes_near_the_lowest_loss": [
        "epsilon-insensitive",
    ],
    "optimizer/test_refused_steps.py::test_training_goes_on_as_if_the_bad_batch_had_not_been": [
        "dense inverse-same data",
        "full batch-same data",
        "layers, kept-same data",
    ],
}
