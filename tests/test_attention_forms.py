"""The forms of attention: what each rewrites, what it leaves alone and why. Each is proven in float64.

What they are worth to a converter is tested with the converter.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edge.errors import ExportError
from edge.lowering import Lowered, give_form, lower, mixing_as_product
from edge.models.seeded import seed_weights

SAMPLES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Layers by name, and what is computed with them."""

    def __init__(self, compute: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, image: Tensor) -> Tensor:
        return self.compute(self, image)


def formed(network: nn.Module, *forms: str, samples: Tensor = SAMPLES) -> Lowered:
    seed_weights(network)
    result = give_form(lower(network.eval(), samples), forms, samples)
    torch.testing.assert_close(result.program.module()(samples[:1]), network(samples[:1]), rtol=1e-4, atol=1e-4)
    return result


def operators(result: Lowered) -> list[str]:
    return [str(n.target).removeprefix("aten.") for n in result.program.graph.nodes if n.op == "call_function"]


def only(result: Lowered) -> tuple[int, list[str]]:
    """Matches and reasons of the only form; behind every form comes the reshaping of views."""
    outcome, _ = result.outcomes
    return outcome.matches, [refusal.reason for refusal in outcome.refused]


class Attention(nn.Module):
    """Of two heads over the positions of an image, values in the channels' order; with talking heads or without."""

    def __init__(self, talking: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(3, 12, 1)
        self.before, self.after = (nn.Conv2d(2, 2, 1) if talking else nn.Identity() for _ in range(2))
        self.bias = nn.Parameter(torch.empty(2, 16, 16))

    def forward(self, image: Tensor) -> Tensor:
        query, key, value = (layer(image).reshape(1, 2, -1, 16) for layer in (self.query, self.key, self.value))
        weights = self.after(self.before(query.transpose(2, 3) @ key / 2 + self.bias).softmax(-1))
        return (weights @ value.transpose(2, 3)).transpose(2, 3).reshape(1, 12, 4, 4)


@pytest.mark.parametrize("talking", [True, False], ids=["with talking heads", "without"])
class TestAttention:
    def test_transposed_product(self, talking: bool) -> None:
        """Before, queries, values and result are transposed; after, queries and weights."""
        result = formed(Attention(talking), "transposed_product")
        assert only(result) == (1, [])
        assert operators(result).count("transpose.int") == 2

    def test_softmax_over_rows(self, talking: bool) -> None:
        result = formed(Attention(talking), "softmax_over_rows")
        assert only(result) == (1, [])
        (softmax,) = (n for n in result.program.graph.nodes if n.target is torch.ops.aten.softmax.int)
        assert softmax.meta["val"].shape == (32, 16)

    def test_batched_product(self, talking: bool) -> None:
        result = formed(Attention(talking), "batched_product")
        assert result.outcomes[0].matches == 2
        found = operators(result)
        assert found.count("bmm.default") == 2 and "matmul.default" not in found

    def test_mixing_as_product(self, talking: bool) -> None:
        result = formed(Attention(talking), "mixing_as_product")
        assert only(result) == (2 * talking, [])
        assert operators(result).count("conv2d.default") == 3


class TestTransposedProduct:
    def test_a_transpose_on_either_factor_pays(self) -> None:
        left = Net(lambda n, x: (x.transpose(2, 3) @ x.sin()).transpose(-1, -2))
        right = Net(lambda n, x: (x.sin() @ x.transpose(-1, -2)).transpose(3, 2))
        for network in (left, right):
            assert only(formed(network, "transposed_product")) == (1, [])

    def test_without_a_transpose_to_cancel_nothing_is_gained(self) -> None:
        assert only(formed(Net(lambda n, x: (x.sin() @ x).transpose(2, 3)), "transposed_product")) == (0, [])

    def test_a_product_that_others_read_is_left_alone(self) -> None:
        def shared(net: Net, image: Tensor) -> Tensor:
            product = image.transpose(2, 3) @ image
            return product + product.transpose(2, 3)

        assert only(formed(Net(shared), "transposed_product")) == (0, ["matmul has other users"])


class TestSoftmaxOverRows:
    @pytest.mark.parametrize(("axis", "matches"), [(-1, 1), (3, 1), (1, 0), (-2, 0)])
    def test_only_the_last_axis(self, axis: int, matches: int) -> None:
        assert only(formed(Net(lambda n, x: x.softmax(axis)), "softmax_over_rows")) == (matches, [])


class TestBatchedProduct:
    def test_a_factor_that_is_repeated_is_refused(self) -> None:
        result = formed(Net(lambda n, x: x @ x.mean(1, keepdim=True)), "batched_product")
        assert only(result) == (0, ["matmul repeats one of its factors"])

    def test_a_product_of_two_matrices_is_none(self) -> None:
        assert only(formed(Net(lambda n, x: x[0, 0] @ x[0, 1]), "batched_product")) == (0, [])


class TestMixingAsProduct:
    def test_a_convolution_of_an_image_stays_one(self) -> None:
        assert only(formed(Net(lambda n, x: n.conv(x.sin()), conv=nn.Conv2d(3, 3, 1)), "mixing_as_product")) == (0, [])

    def test_a_wrong_product_is_caught_by_its_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The twin: weights read along the wrong axis must end the run."""
        right = mixing_as_product.constant
        monkeypatch.setattr(mixing_as_product, "constant", lambda module, node: _transposed(right(module, node)))
        network = Net(lambda n, x: n.conv((x @ x).softmax(-1)), conv=nn.Conv2d(3, 3, 1))
        with pytest.raises(ExportError, match="mixing_as_product changed the network"):
            formed(network, "mixing_as_product")


def _transposed(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1) if weight.ndim > 1 else weight
