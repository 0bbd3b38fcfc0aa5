"""Metrics and gates: what each figure means, and that a gate fails when it should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge import targets
from edge.parity import metrics
from edge.parity.gates import compare_with_simulation, judge, remark

GENERATOR = np.random.default_rng(0)
ORACLE = GENERATOR.standard_normal((16, 1000))
GATES = targets.load("cortex-a72").gates


def with_noise(db: float) -> np.ndarray:
    noise = GENERATOR.standard_normal(ORACLE.shape)
    scale = np.linalg.norm(ORACLE, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return ORACLE + noise * scale * 10 ** (-db / 20)


def measured(outputs: np.ndarray, tie: float = 1e-5) -> metrics.Measured:
    return metrics.measure({"logits": ORACLE}, {"logits": with_noise(126)}, {"logits": outputs}, tie)


def test_sqnr_is_what_was_put_in():
    assert metrics.sqnr_db(ORACLE, with_noise(73)) == pytest.approx([73] * 16, abs=1e-6)


def test_equal_outputs_have_infinite_sqnr_and_a_nan_has_none():
    assert metrics.sqnr_db(ORACLE, ORACLE) == [math.inf] * 16
    broken = ORACLE.copy()
    broken[3, 5] = np.nan
    assert metrics.sqnr_db(ORACLE, broken)[3] == -math.inf


def test_a_nearly_silent_sample_is_measured_against_the_floor():
    oracle = ORACLE.copy()
    oracle[0] *= 1e-9
    outputs = oracle + 1e-6
    assert metrics.sqnr_db(oracle, outputs)[0] > 60


def test_top1_forgives_a_tie_and_nothing_else():
    oracle = np.array([[1.0, 0.5, 0.0], [1.0, 1.0 - 1e-6, 0.0]])
    swapped = oracle[:, [1, 0, 2]]
    assert metrics.top1(oracle, swapped, tie=1e-5) == 0.5
    assert metrics.top1(oracle, oracle, tie=0) == 1.0


@pytest.mark.parametrize(("precision", "good", "bad"), [("fp32", 124, 99), ("fp16", 60, 45), ("int8", 25, 18)])
def test_each_gate_holds_where_it_should_and_fails_where_it_should(precision: str, good: float, bad: float):
    assert judge(measured(with_noise(good), tie=0.1), None, {}, GATES[precision]) == ""
    assert "SQNR" in judge(measured(with_noise(bad), tie=0.1), None, {}, GATES[precision])


def test_fp32_may_not_be_much_worse_than_pytorch_itself():
    """105 dB passes the fixed threshold, but is eleven times eager PyTorch's own error: something was lost."""
    assert "times eager PyTorch's own" in judge(measured(with_noise(105)), None, {}, GATES["fp32"])


def test_two_swapped_channels_fail():
    swapped = ORACLE.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    for precision in ("fp32", "fp16", "int8"):
        assert "largest error" in judge(measured(swapped), None, {}, GATES[precision])


def test_one_nan_fails():
    broken = ORACLE.copy()
    broken[0, 0] = np.nan
    assert "not finite" in judge(measured(broken), None, {}, GATES["int8"])


def test_one_element_off_by_more_than_the_gate_fails_though_sqnr_holds():
    outputs = with_noise(126)
    outputs[2, 7] += 3e-5 * np.abs(ORACLE[2]).max()
    reason = judge(measured(outputs), None, {}, GATES["fp32"])
    assert "largest error" in reason


def test_the_worst_output_of_several_counts():
    oracle = {"features_0": ORACLE, "features_1": ORACLE}
    outputs = {"features_0": with_noise(126), "features_1": with_noise(30)}
    result = metrics.measure(oracle, oracle | {"features_0": with_noise(126)}, outputs, 0)
    assert result.sqnr_db == pytest.approx(30)
    assert result.top1 is None


def test_quantisation_and_lowering_error_are_told_apart():
    simulation = with_noise(30)
    step = (simulation.max() - simulation.min()) / 255
    outputs = simulation + 0.4 * step
    lowering = compare_with_simulation("a simulation", {"logits": simulation}, {"logits": ORACLE}, {"logits": outputs})
    assert lowering.quantisation_sqnr_db == pytest.approx(30)
    assert lowering.within_one_quantum == 1.0
    assert lowering.sqnr_db > 35


def test_a_conversion_may_not_lose_much_more_than_quantisation_itself():
    """24 dB from the network passes the fixed gate; 20 dB from a simulation that is itself 30 dB away does not."""
    simulation = with_noise(30)
    for loss, passes in ((28, True), (24, False)):
        noise = GENERATOR.standard_normal(ORACLE.shape)
        noise *= np.linalg.norm(ORACLE, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        outputs = simulation + noise * 10 ** (-loss / 20)
        named = ({"logits": a} for a in (simulation, ORACLE, outputs))
        reason = judge(measured(outputs), compare_with_simulation("a simulation", *named), {}, GATES["int8"])
        assert (reason == "") is passes
        assert passes or "the conversion lost" in reason


@pytest.mark.parametrize(
    "notes",
    [
        {"operators_within_one_quantum": 0.98, "worst_operator": "3 CONV_2D"},
        {"largest_weight_error_quanta": 1.0},
    ],
)
def test_what_only_the_backend_can_see_has_gates_too(notes: dict):
    """One flipped bit of an int8 weight drowns in quantisation at the outputs; against the float weight it does not."""
    fine = {"operators_within_one_quantum": 1.0, "largest_weight_error_quanta": 0.5}
    outputs = with_noise(25)
    assert judge(measured(outputs), None, fine, GATES["int8"]) == ""
    assert judge(measured(outputs), None, fine | notes, GATES["int8"]) != ""


def test_a_network_near_the_end_of_float16_is_worth_a_word():
    assert remark(15_000, GATES["fp16"]) == ""
    assert "65504" in remark(20_000, GATES["fp16"])
    assert remark(20_000, GATES["fp32"]) == ""
