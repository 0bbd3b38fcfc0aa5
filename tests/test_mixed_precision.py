"""Mixed precision: the layers that int8 cannot do without losing the network stay in float, those and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edge import targets
from edge.parity.agreement import Agreement
from edge.parity.gates import judge, judge_bits
from edge.parity.metrics import measure
from edge.quantisation import search
from edge.quantisation.search import BLURRED_MARGIN_DB, GROUPS, LARGEST_FLOAT_SHARE, MARGIN_DB, Layer, choose

GATE_DB = 20.0


class Additive:
    """A network whose layers add noise of a known power each; a chain adds all of it while any of it is in int8.

    One sample in twenty has all of the noise, the others a tenth of it.
    """

    samples = 20
    blurred = 0
    hard = 13

    def __init__(self, noise: dict[str, float], chains: Sequence[frozenset[str]] = (), **multiply_adds: int) -> None:
        self.noise, self.chains = noise, chains
        self.layers = [Layer(name, name.split("_")[0], multiply_adds.get(name, 0)) for name in noise]
        self.asked = 0

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        self.asked += 1
        noisy = set(self.noise) - kept
        noisy |= {name for chain in self.chains if chain & noisy for name in chain}
        power = sum(self.noise[name] for name in noisy)
        worst = float(-10 * np.log10(power)) if power else np.inf
        return (worst if sample == self.hard else worst + 10 for sample in samples)


QUIET = {f"conv_{index}": 1e-5 for index in range(6)}


def test_nothing_is_kept_and_little_asked_where_int8_is_good_enough():
    network = Additive(QUIET)
    choice = choose(network, GATE_DB)
    assert choice.kept == ()
    assert network.asked == 1


def test_the_one_layer_to_blame_is_kept_and_no_other_of_its_kind():
    choice = choose(Additive(QUIET | {"norm_0": 1e-6, "norm_1": 0.1, "norm_2": 1e-6}), GATE_DB)
    assert choice.names == {"norm_1"}
    assert choice.before.sqnr_db < GATE_DB < GATE_DB + MARGIN_DB <= choice.after.sqnr_db


def test_samples_out_of_focus_decide_too_with_a_margin_of_their_own():
    """Between the two margins lies what is good enough for the last sample alone, which is out of focus."""
    network = Additive(QUIET | {"norm_0": 10 ** (-(GATE_DB + BLURRED_MARGIN_DB + 0.1) / 10)})
    network.hard = network.samples - 1
    assert choose(network, GATE_DB).names == {"norm_0"}
    network.blurred = 1
    choice = choose(network, GATE_DB)
    assert not choice.kept
    assert choice.before.goal_db == GATE_DB + BLURRED_MARGIN_DB
    assert choice.before.sqnr_db == pytest.approx(choice.before.goal_db + 0.1, abs=0.1)
    network.noise["norm_0"] = 10 ** (-(GATE_DB + BLURRED_MARGIN_DB - 0.1) / 10)
    assert choose(network, GATE_DB).names == {"norm_0"}


class OneOfAnotherKind(Additive):
    """The last sample's noise is of a layer of its own, and small beside that of all others."""

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        for sample in samples:
            layer = "norm_1" if sample == self.samples - 1 else "norm_0"
            yield np.inf if layer in kept else -10 * np.log10(self.noise[layer])


def test_a_sample_that_is_hard_for_another_reason_is_not_overlooked():
    choice = choose(OneOfAnotherKind(QUIET | {"norm_0": 0.5, "norm_1": 0.1}), GATE_DB)
    assert choice.names == {"norm_0", "norm_1"}
    assert choice.after.sqnr_db == np.inf


class OfEachItsOwn(Additive):
    """Most samples lack something in both layers; the last two all of it in one, each in another."""

    most, last_but_one, last = (6e-3, 4e-3), (0.0, 9e-3), (9.5e-3, 0.0)

    def sqnr_db(self, kept: frozenset[str], samples: Sequence[int]) -> Iterator[float]:
        by_sample = [self.most] * (self.samples - 2) + [self.last_but_one, self.last]
        for sample in samples:
            noise = sum(of for name, of in zip(self.noise, by_sample[sample], strict=True) if name not in kept)
            yield -10 * np.log10(noise) if noise else np.inf


def test_of_several_searches_the_best_one_is_taken(monkeypatch: pytest.MonkeyPatch):
    """The first one overlooks the last sample but one; the second one sees it, and overlooks the last: it is worse."""
    network = OfEachItsOwn({"norm_0": 0.0, "mul_0": 0.0})
    monkeypatch.setattr(search, "ROUNDS", 2)
    assert choose(network, GATE_DB).names == {"norm_0"}
    monkeypatch.setattr(search, "ROUNDS", 3)
    assert choose(network, GATE_DB).names == {"norm_0", "mul_0"}


@pytest.mark.parametrize(("reached_db", "refused"), [(GATE_DB + 0.5, False), (GATE_DB - 0.5, True)])
def test_what_holds_the_gate_is_not_given_up_for_the_margin(reached_db: float, refused: bool):
    """What one sample lacks is in most of the network, and with that in int8 it holds the gate, or not."""
    noise = {"norm_0": 0.5, "norm_1": 10 ** (-reached_db / 10)}
    choice = choose(OneOfAnotherKind(QUIET | noise, norm_1=900, conv_0=100), GATE_DB)
    assert choice.names == (set() if refused else {"norm_0"})
    assert bool(choice.refused) is refused


def test_a_chain_is_kept_whole_though_no_part_of_it_alone_helps():
    """Three operators of a normalisation pass the same variance on: in float it has to stay in all of them."""
    chain = frozenset({"mean_1", "add_1", "rsqrt_1"})
    noise = {f"{kind}_{index}": 1e-6 for kind in ("mean", "add", "rsqrt") for index in range(3)}
    noise |= dict.fromkeys(chain, 0.05)
    choice = choose(Additive(QUIET | noise, [chain]), GATE_DB)
    assert choice.names == chain


def test_of_layers_that_are_noisy_together_the_noisiest_are_kept():
    """Ten layers of 16 dB each alone: int8 may keep as much noise as the gate allows, and a margin less."""
    noise = {f"norm_{index}": 10**-1.6 / (1 + index) for index in range(10)}
    choice = choose(Additive(noise), GATE_DB)
    assert choice.names == {f"norm_{index}" for index in range(len(choice.kept))}
    rest = sum(power for name, power in noise.items() if name not in choice.names)
    one_more = rest + noise[f"norm_{len(choice.kept) - 1}"]
    assert rest <= 10 ** (-(GATE_DB + MARGIN_DB) / 10) < one_more


def test_a_network_of_thousands_of_layers_is_searched_in_groups_of_neighbours():
    """A shift-wise network has fifteen hundred operators to ask about, at seconds each."""
    noise = {f"mean_{index}": 1e-7 for index in range(900)} | {f"add_{index}": 1e-7 for index in range(900)}
    noise |= {"mean_500": 0.05, "add_100": 0.05}
    network = Additive(noise)
    choice = choose(network, GATE_DB)
    assert {"mean_500", "add_100"} <= choice.names and len(choice.names) <= 2 * 1800 / GROUPS + 2
    assert network.asked < GROUPS / 2, "what is quiet together is not asked about one by one"


def test_where_most_layers_are_noisy_dividing_costs_little():
    noise = {f"norm_{index}": 10**-1.6 / (1 + index % 7) for index in range(60)}
    network = Additive(QUIET | noise)
    choice = choose(network, GATE_DB)
    assert {name for name in noise if noise[name] > 10**-1.6 / 3} <= choice.names
    assert network.asked < 2.75 * len(noise)


@pytest.mark.parametrize(("share", "refused"), [(LARGEST_FLOAT_SHARE, False), (LARGEST_FLOAT_SHARE + 0.01, True)])
def test_an_int8_artifact_that_would_be_mostly_float_is_refused_in_words(share: float, refused: bool):
    network = Additive(QUIET | {"linear_0": 0.1}, linear_0=round(share * 1000), conv_0=1000 - round(share * 1000))
    choice = choose(network, GATE_DB)
    assert bool(choice.refused) is refused
    assert choice.names == (frozenset() if refused else {"linear_0"})
    if refused:
        assert "26% of the multiply-adds" in choice.refused


def test_a_search_that_will_be_refused_ends_as_soon_as_that_is_clear():
    """Every one of 60 layers is needed, each with its multiply-adds: little more than a quarter is asked."""
    names = [f"conv_{index}" for index in range(60)]
    network = Additive(dict.fromkeys(names, 0.05), **dict.fromkeys(names, 10))
    assert "at least 27%" in choose(network, GATE_DB).refused
    divided, bisections, refused = len(names) / 3, 2 * 6, len(names) * LARGEST_FLOAT_SHARE
    assert network.asked < 2 * (len(names) + divided + bisections + refused)


def test_what_most_multiply_adds_are_in_stays_in_int8_where_quieter_layers_will_do():
    network = Additive({"conv_0": 6e-3, "add_0": 5e-3, "add_1": 1e-6}, conv_0=1000)
    choice = choose(network, GATE_DB)
    assert choice.names == {"add_0"}
    assert choice.after.sqnr_db > GATE_DB + MARGIN_DB


def test_where_the_noisiest_layer_is_too_large_those_are_kept_that_buy_most_for_a_multiply_add():
    """All that is not in the large convolution has to stay in float then, and that is a tenth of the network."""
    noise = {"conv_0": 8e-3, "conv_1": 2e-3} | {f"gelu_{index}": 2e-3 + index * 1e-5 for index in range(4)}
    choice = choose(Additive(noise, conv_0=900, conv_1=100), GATE_DB - 1)
    assert not choice.refused
    assert choice.names == set(noise) - {"conv_0"}
    assert choice.after.enough


def test_the_refusal_is_part_of_the_reason_why_the_gate_is_missed():
    gate = targets.load("cortex-a72").gates["int8"]
    oracle = np.random.default_rng(0).standard_normal((4, 10))
    poor = {"logits": oracle + 0.3 * np.random.default_rng(1).standard_normal((4, 10))}
    measured = measure({"logits": oracle}, {"logits": oracle.astype(np.float32)}, poor, 0.0)
    refused = {"mixed_precision": {"refused": "mixed precision would leave 60% in float"}}
    assert "would leave 60% in float" in judge(measured, None, refused, gate)
    assert "would leave" not in judge(measured, None, {}, gate)


@pytest.mark.parametrize(
    ("notes", "asked"),
    [
        ({"float_operators": 0, "processor_operators": {}}, True),
        ({"float_operators": {}}, True),
        ({"float_operators": 3}, False),
        ({"float_operators": {"aten.add.Tensor": 1}}, False),
        ({"float_operators": 0, "processor_operators": {"SOFTMAX": 5}}, False),
    ],
)
def test_bits_are_asked_for_only_where_all_is_computed_in_integers(notes: dict[str, Any], asked: bool):
    gate = targets.load("cortex-a72").gates["int8"]
    nearly = Agreement(0.99, 45.0, {"logits": 0.01})
    assert bool(judge_bits(nearly, "int8", notes, gate)) is asked
