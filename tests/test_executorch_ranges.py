"""Which rule gives the int8 ranges is decided by samples that the ranges were not taken from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torchao.quantization.pt2e.observer import MinMaxObserver

from edge.backends import executorch_quantize, executorch_ranges
from edge.backends.executorch_quantize import RANGE_RULES, RangeRule, Samples, observe, with_observers
from edge.backends.executorch_ranges import choose_precision
from edge.backends.executorch_simulation import PreparedSimulation
from edge.calibration.focus import out_of_focus

GATE_DB = 15.0


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
    simulation = PreparedSimulation(observe(with_observers(program(), rule), rule, calibration), samples, {})
    return min(simulation.sqnr_db(frozenset(), range(len(samples))))


@pytest.mark.parametrize("worse", [Clipping, Wasteful])
def test_the_rule_is_the_one_that_new_images_do_better_with(
    monkeypatch: pytest.MonkeyPatch, worse: type[MinMaxObserver]
) -> None:
    rules = {
        "worse": RangeRule(executorch_quantize._configuration(worse), reaches_far=False),
        "min-max": RANGE_RULES["min-max"],
    }
    for module in (executorch_quantize, executorch_ranges):
        monkeypatch.setattr(module, "RANGE_RULES", rules)
    calibration = images(8, seed=1)
    chosen = choose_precision(program, calibration, GATE_DB)
    assert chosen.rule == "min-max"
    for rule in rules:
        assert chosen.held_out[rule].sqnr_db == pytest.approx(held_back_db(rule, calibration, images(4, seed=2)), abs=3)


def test_a_rule_is_judged_by_samples_that_it_has_not_seen() -> None:
    """One image in eight is ten times as bright: ranges that know it show nothing of what it would have lost."""
    *most, (last,) = images(8, seed=1)
    calibration = [*most, (10 * last,)]
    chosen = choose_precision(program, calibration, GATE_DB)
    assert chosen.held_out["min-max"].sqnr_db < 10 < 30 < held_back_db("min-max", calibration, [(10 * last,)])


class Peak(nn.Module):
    """One pixel reaches three hundred times as far as the others and counts for nothing."""

    def __init__(self) -> None:
        super().__init__()
        at = torch.zeros(1, 3, 16, 16)
        at[0, 0, 0, 0] = 1
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("peak", 150 * at)
        self.register_buffer("others", 1 - at)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv((image + self.peak) * self.others)


class Tight(Clipping):
    """Cuts off the outermost part: the right thing for a peak that counts for nothing."""

    part = 0.85


def with_peak() -> ExportedProgram:
    torch.manual_seed(0)
    return torch.export.export(Peak().eval(), (torch.zeros(1, 3, 16, 16),))


@pytest.fixture
def tight_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = RangeRule(executorch_quantize._configuration(Tight), reaches_far=False)
    rules = {"tight": tight, "min-max": RANGE_RULES["min-max"]}
    for module in (executorch_quantize, executorch_ranges):
        monkeypatch.setattr(module, "RANGE_RULES", rules)
    throughout = executorch_ranges._Rules(with_peak, images(8, seed=1), GATE_DB).held_out(frozenset())
    assert throughout["min-max"] < throughout["tight"]
    assert not throughout["tight"].enough


@pytest.mark.usefixtures("tight_or_not")
def test_where_one_rule_would_leave_too_much_in_float_the_other_is_tried() -> None:
    """A gate that the convolution does not reach with the first rule, and it is all of the multiply-adds."""
    chosen = choose_precision(with_peak, images(8, seed=1), GATE_DB + 15)
    assert not chosen.choice.refused
    assert chosen.choice.names == {"add", "mul"}
    assert chosen.rule == "min-max"


@pytest.mark.usefixtures("tight_or_not")
def test_rules_are_judged_without_the_layers_that_int8_cannot_do() -> None:
    """With those in int8, the rule that suits nothing else suits them."""
    chosen = choose_precision(with_peak, images(8, seed=1), GATE_DB)
    assert chosen.choice.names == {"add", "mul"}
    assert chosen.rule == "min-max"
    assert chosen.held_out["tight"].sqnr_db + 6 < chosen.held_out["min-max"].sqnr_db
    assert chosen.choice.after.sqnr_db > chosen.held_out["tight"].sqnr_db + 6


class ByItsOwnDeviation(nn.Module):
    """Divides by how much an image has of edges, as LayerNorm and GRN do deep in a network."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.edges.weight.data = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).repeat(3, 1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return image * torch.rsqrt(self.edges(image).square().mean((1, 2, 3), keepdim=True))


def test_the_far_reaching_rule_knows_images_out_of_focus_and_is_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> ExportedProgram:
        return torch.export.export(ByItsOwnDeviation().eval(), (torch.ones(1, 3, 56, 56),))

    generator = torch.Generator().manual_seed(0)
    sharp = [(torch.rand(1, 3, 56, 56, generator=generator) + 0.5,) for _ in range(5)]
    calibration, blurred = sharp[:4], [tuple(map(out_of_focus, sharp[4]))]

    def of_the_blurred() -> float:
        observed = observe(with_observers(network(), "min-max"), "min-max", calibration)
        return next(PreparedSimulation(observed, blurred, {}).sqnr_db(frozenset(), [0]))

    assert of_the_blurred() > 25
    far, short = RANGE_RULES["min-max"], replace(RANGE_RULES["min-max"], reaches_far=False)
    with monkeypatch.context() as patched:
        patched.setitem(RANGE_RULES, "min-max", short)
        assert of_the_blurred() < 10
    assert RANGE_RULES["histogram"].observed(calibration) == calibration
    for module in (executorch_quantize, executorch_ranges):
        monkeypatch.setattr(module, "RANGE_RULES", {"short": short, "min-max": far})
    chosen = choose_precision(network, calibration, GATE_DB)
    assert chosen.rule == "min-max"
    assert chosen.held_out["short"].sqnr_db < 12
