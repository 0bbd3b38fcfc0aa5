"""Which rule gives the int8 ranges is decided by samples that the ranges were not taken from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torchao.quantization.pt2e.observer import MinMaxObserver

from edge.backends import executorch_quantize, executorch_ranges
from edge.backends.executorch_quantize import RANGE_RULES, Samples, observe, with_observers
from edge.backends.executorch_ranges import choose_ranges
from edge.backends.executorch_simulation import PreparedSimulation


class Clipping(MinMaxObserver):
    """Cuts off what is larger than a third of the largest observed value, as a histogram does with what is rare."""

    part = 1 / 3

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self._calculate_qparams(self.min_val * self.part, self.max_val * self.part)


class Wasteful(Clipping):
    """Leaves room for thrice the largest observed value."""

    part = 3


def program() -> ExportedProgram:
    torch.manual_seed(0)
    return torch.export.export(nn.Conv2d(3, 8, 3).eval(), (torch.zeros(1, 3, 16, 16),))


def images(count: int, seed: int) -> Samples:
    """Uniform, so that their ranges are alike."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(1, 3, 16, 16, generator=generator) - 0.5,) for _ in range(count)]


def held_back_db(rule: str, calibration: Samples, samples: Samples) -> float:
    """The worst SQNR of further samples."""
    simulation = PreparedSimulation(observe(with_observers(program(), rule), calibration), samples, {})
    return min(simulation.sqnr_db(frozenset(), range(len(samples))))


@pytest.mark.parametrize("worse", [Clipping, Wasteful])
def test_the_rule_is_the_one_that_new_images_do_better_with(
    monkeypatch: pytest.MonkeyPatch, worse: type[MinMaxObserver]
) -> None:
    rules = {"worse": executorch_quantize._configuration(worse), "min-max": RANGE_RULES["min-max"]}
    for module in (executorch_quantize, executorch_ranges):
        monkeypatch.setattr(module, "RANGE_RULES", rules)
    calibration = images(8, seed=1)
    ranges = choose_ranges(program, calibration)
    assert ranges.rule == "min-max"
    for rule in rules:
        assert ranges.held_out_db[rule] == pytest.approx(held_back_db(rule, calibration, images(4, seed=2)), abs=3)


def test_a_rule_is_judged_by_samples_that_it_has_not_seen() -> None:
    """One image in eight is ten times as bright: ranges that know it show nothing of what it would have lost."""
    *most, (last,) = images(8, seed=1)
    calibration = [*most, (10 * last,)]
    ranges = choose_ranges(program, calibration)
    assert ranges.held_out_db["min-max"] < 10 < 30 < held_back_db("min-max", calibration, [(10 * last,)])
