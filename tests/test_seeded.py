"""Seeded weights are the same for everyone, and make a network whose numbers behave like a trained one's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge.calibration.photographs import calibration_set, check_samples
from edge.models import create, find
from edge.models.checkpoints import digest
from edge.models.fasternet import Config, FasterNet
from edge.models.seeded import estimate_batch_norm, seed_weights

CONFIG = Config(16, (1, 1, 2, 1), "gelu", head_width=64, classes=10)


def photographs(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(3).normal(0.2, 1.1, (count, 3, size, size)).astype(np.float32)


def seeded(config: Config = CONFIG, seed: int = 0) -> FasterNet:
    network = FasterNet(config)
    seed_weights(network, seed)
    return network


def norms(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def test_the_same_seed_gives_the_same_bits_on_every_machine() -> None:
    assert digest(seeded().state_dict()) == digest(seeded().state_dict()) != digest(seeded(seed=1).state_dict())
    assert seeded().state_dict()["embedding.conv.weight"].flatten()[:4].tolist() == pytest.approx(
        [0.0025146044, -0.0026420973, 0.0128084533, 0.0020980023], rel=1e-7
    )


def test_nobodys_random_stream_is_disturbed() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    network = FasterNet(CONFIG)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    seed_weights(network)
    estimate_batch_norm(network, photographs(4))
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()


def test_the_weights_are_distributed_as_the_authors_initialise_them() -> None:
    weights = dict(seeded(Config(64, (1, 1, 1, 1), "relu", head_width=1280)).named_parameters())
    large = weights["head.weight"]
    assert large.std().item() == pytest.approx(0.02, rel=0.01) and abs(large.mean().item()) < 1e-4


def test_a_branch_that_a_network_starts_small_stays_small() -> None:
    """Without it a ResNet-50 multiplies the rounding of its first layers by hundreds, which no trained one does."""
    ordinary, small = nn.BatchNorm2d(512), nn.BatchNorm2d(512)
    nn.init.constant_(small.weight, 0.2)
    seed_weights(ordinary)
    seed_weights(small)
    assert torch.allclose(small.weight, 0.2 * ordinary.weight, rtol=1e-6)
    assert torch.equal(small.bias, ordinary.bias)


def test_a_layer_with_a_bias_keeps_the_size_of_its_values() -> None:
    """No norm follows it: weights of 0.02 would make a branch that is nearly nothing, and hide all its errors."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1024, 512), nn.LayerNorm(512), nn.Linear(512, 100))
    seed_weights(network)
    x = torch.randn(64, 1024)
    assert network[0](x).std().item() == pytest.approx(1, rel=0.05)
    assert network(x).std().item() == pytest.approx(1, rel=0.2)
    assert not network[0].bias.any() and not network[2].bias.any()


def test_no_parameter_stays_as_it_began() -> None:
    """A layer scale of 1e-6 would hide the whole branch, a LayerNorm's 1 and 0 a fold that forgot them."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.scale = nn.LayerNorm(64), nn.Parameter(torch.full((64,), 1e-6))

    network = Scaled()
    seed_weights(network)
    assert network.scale.abs().max() <= 0.5 and network.scale.std() > 0.2
    assert network.norm.weight.min() >= 0.5 and network.norm.weight.std() > 0.2 and network.norm.bias.std() > 0.2


def test_every_norm_has_a_scale_and_a_shift_that_a_fold_cannot_forget() -> None:
    for name, norm in norms(seeded()).items():
        assert norm.weight.min() >= 0.5 and norm.weight.max() < 1.5 and norm.weight.std() > 0.2, name
        assert norm.bias.abs().max() < 0.5 and norm.bias.std() > 0.2, name


class TestBatchNormStatistics:
    def test_they_are_those_of_the_images(self) -> None:
        network, images = seeded(), photographs(6)
        estimate_batch_norm(network, images)
        with torch.no_grad():
            before = network.double().embedding.conv(torch.from_numpy(images).double())
        norm = norms(network)["embedding.norm"]
        torch.testing.assert_close(norm.running_mean, before.mean((0, 2, 3)), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(norm.running_var, before.var((0, 2, 3), correction=0), rtol=1e-6, atol=0)

    def test_every_norm_then_gives_its_own_shift_and_scale(self) -> None:
        """In evaluation mode, on the same images: the statistics of all layers agree with one another."""
        network, images = seeded(), photographs(6)
        estimate_batch_norm(network, images)
        outputs: dict[str, Tensor] = {}
        for name, norm in norms(network).items():
            norm.register_forward_hook(lambda module, _, output, name=name: outputs.update({name: output}))
        with torch.no_grad():
            network.double()(torch.from_numpy(images).double())
        for name, norm in norms(network).items():
            var, mean = torch.var_mean(outputs[name], (0, 2, 3), correction=0)
            scale = norm.weight * (norm.running_var / (norm.running_var + norm.eps)).sqrt()
            torch.testing.assert_close(mean, norm.bias.detach(), rtol=0, atol=1e-5)
            torch.testing.assert_close(var.sqrt(), scale.detach(), rtol=1e-5, atol=0)

    def test_neither_threads_nor_earlier_statistics_show(self) -> None:
        images, threads = photographs(5), torch.get_num_threads()
        digests = set()
        for count in (1, 2):
            network = seeded().train(count == 1)
            for norm in norms(network).values():
                norm.running_mean.fill_(count)
            torch.set_num_threads(count)
            try:
                estimate_batch_norm(network, images)
            finally:
                torch.set_num_threads(threads)
            assert not network.training and all(norm.momentum == 0.1 for norm in norms(network).values())
            digests.add(digest(network.state_dict()))
        assert len(digests) == 1

    def test_of_many_images_some_are_taken(self) -> None:
        images = photographs(70, size=32)
        many, some = seeded(), seeded()
        estimate_batch_norm(many, images)
        estimate_batch_norm(some, images[[*range(0, 70, 3)]])
        assert digest(many.state_dict()) == digest(some.state_dict())

    def test_a_network_without_norms_only_changes_its_mode(self) -> None:
        network = seeded(Config(16, (1, 1, 1, 1), "gelu", norm="ln", classes=10)).train()
        before = digest(network.state_dict())
        estimate_batch_norm(network, photographs(2))
        assert digest(network.state_dict()) == before and not network.training


def test_the_smallest_variant_has_sane_numbers() -> None:
    """Classes differ between pictures, float16 holds every activation with room to spare, and passes its gate."""
    preprocessing = find("fasternet_t0").preprocessing
    network = create("fasternet_t0")
    seed_weights(network)
    estimate_batch_norm(network, calibration_set(preprocessing).samples[:13])
    images = torch.from_numpy(check_samples(preprocessing))
    largest = 0.0

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, output.abs().max().item())

    for module in network.modules():
        module.register_forward_hook(watch)
    with torch.no_grad():
        logits = network(images).double()
    assert largest < 65504 / 100
    assert bool(logits.isfinite().all()) and len(logits.argmax(1).unique()) >= 6
    with torch.no_grad():
        half = network.half()(images[4:8].half()).double()
    sqnr = 10 * torch.log10(logits[4:8].square().sum(1) / (logits[4:8] - half).square().sum(1))
    assert sqnr.min() > 50
