"""Branches are merged before anything else, each converter gets the form it asks for, and every step is proven."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edge.errors import ExportError
from edge.formats import FORMATS
from edge.lowering import Rewrite, forms, give_form, lower, reparameterisation
from edge.lowering.attention import has_attention
from edge.lowering.graph import is_call, replace

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """Two convolutions of one input, trained side by side (RepVGG's idea, without its norms)."""

    def __init__(self, channels: int, fault: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)

    def reparameterize(self) -> nn.Module:
        merged = nn.Conv2d(self.first.in_channels, self.first.out_channels, 3, padding=1).to(self.first.weight.dtype)
        with torch.no_grad():
            merged.weight.copy_(self.first.weight + self.second.weight + self.fault)
            merged.bias.copy_(self.first.bias + self.second.bias)
        return merged


def operators(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target).removeprefix("aten.") for node in program.graph.nodes if node.op == "call_function"]


class TestReparameterisation:
    def test_branches_become_one_layer_and_the_network_stays_as_it_is(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(Branches(3), nn.Sequential(nn.ReLU(), Branches(3))).eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        lowered = lower(network, IMAGE)
        first = lowered.outcomes[0]
        assert (first.name, first.matches) == (reparameterisation.NAME, 2)
        assert first.proof_db is not None and first.proof_db >= 250
        assert operators(lowered.program) == ["conv2d.default", "relu.default", "conv2d.default"]
        assert lowered.program.graph_signature.user_inputs and next(lowered.program.parameters()).dtype == torch.float32
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        torch.testing.assert_close(lowered.program.module()(IMAGE[:1]), network(IMAGE[:1]), rtol=1e-5, atol=1e-5)

    def test_a_wrong_merge_is_an_error_that_names_it(self) -> None:
        torch.manual_seed(0)
        with pytest.raises(ExportError, match="reparameterisation changed the network"):
            lower(nn.Sequential(Branches(3, fault=1e-9)).eval(), IMAGE, model="branches")

    def test_a_network_without_branches_is_exported_as_it_is(self) -> None:
        outcome = lower(nn.Conv2d(3, 4, 1).eval(), IMAGE).outcomes[0]
        assert (outcome.name, outcome.matches, outcome.proof_db) == (reparameterisation.NAME, 0, None)


def _relu_as_maximum(module: GraphModule, node: Node, factor: float = 1.0) -> None:
    (x,) = node.args
    with module.graph.inserting_before(node):
        zero = module.graph.call_function(torch.ops.aten.mul.Scalar, (x, 0.0))
        largest = module.graph.call_function(torch.ops.aten.maximum.default, (x, zero))
        scaled = module.graph.call_function(torch.ops.aten.mul.Scalar, (largest, factor))
    replace(node, scaled)


def form(name: str, factor: float) -> Rewrite:
    return Rewrite(
        name,
        "relu(x)  ->  max(x, 0)",
        lambda module, node: node if is_call(node, torch.ops.aten.relu.default) else None,
        lambda module, node: None,
        partial(_relu_as_maximum, factor=factor),
    )


class TestForms:
    @pytest.fixture(autouse=True)
    def forms(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(forms.FORMS, "relu_as_maximum", form("relu_as_maximum", 1.0))
        monkeypatch.setitem(forms.FORMS, "relu_doubled", form("relu_doubled", 2.0))

    def test_a_form_is_given_on_top_of_the_common_program(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
        common = lower(network, IMAGE)
        formed = give_form(common, ("relu_as_maximum",), IMAGE)
        assert "maximum.default" in operators(formed.program) and "relu.default" in operators(common.program)
        outcome = formed.outcomes[0]
        assert outcome.matches == 1 and outcome.proof_db is not None and outcome.proof_db >= 250
        torch.testing.assert_close(formed.program.module()(IMAGE[:1]), network(IMAGE[:1]))

    def test_a_reshape_stays_one_that_asks_for_no_order_in_memory(self) -> None:
        """A converter may trace the program with the channels last in memory, where a view would be an error."""
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)).eval()
        formed = give_form(lower(network, IMAGE), ("relu_as_maximum",), IMAGE).program
        assert not any("view" in name for name in operators(formed))
        last = IMAGE[:1].contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(formed.module(check_guards=False)(last), network(IMAGE[:1]))

    def test_without_a_form_it_is_the_common_program_itself(self) -> None:
        common = lower(nn.Conv2d(3, 4, 1).eval(), IMAGE)
        assert give_form(common, (), IMAGE) is common

    def test_a_form_that_changes_the_network_is_refused(self) -> None:
        common = lower(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval(), IMAGE)
        with pytest.raises(ExportError, match="relu_doubled changed the network"):
            give_form(common, ("relu_doubled",), IMAGE)


def test_every_form_in_the_table_of_formats_exists() -> None:
    named = {form for format in FORMATS.values() for c in format.converters.values() for form in c.forms}
    assert named <= set(forms.FORMS)
    assert all(rewrite.name == name for name, rewrite in forms.FORMS.items())


class TestAttention:
    class Attention(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            tokens = image.flatten(2)
            return (tokens.transpose(1, 2) @ tokens).softmax(-1) @ tokens.transpose(1, 2)

    def test_a_softmax_that_weighs_values_is_attention(self) -> None:
        assert has_attention(torch.export.export(self.Attention(), (IMAGE[:1],)))

    def test_a_classifiers_softmax_is_not(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Softmax(-1))
        assert not has_attention(torch.export.export(network, (IMAGE[:1],)))
