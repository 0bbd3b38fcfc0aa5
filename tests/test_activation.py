"""Activations in kernels: as exact as they say, and without a call or a division."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional

from edge import targets
from edge.kernels import activation, plain
from edge.kernels.template import Array


def computed(name: str, points: Array) -> Array:
    x = tvm.te.placeholder(points.shape, "float32")
    function = tvm.te.create_prim_func([x, tvm.te.compute(points.shape, lambda i: activation.expression(name, x[i]))])
    scheduled, _ = plain.schedule(function, plain.Vectors(8, 16))
    kernel = tvm.compile(tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")}), target={"kind": "llvm"})
    result = tvm.runtime.empty(points.shape, "float32")
    kernel["main"](tvm.runtime.tensor(points), result)
    return result.numpy()


@pytest.mark.parametrize("name", activation.EXPRESSIONS)
def test_every_activation_is_its_reference(name: str) -> None:
    points = np.concatenate([np.linspace(-9, 9, 1 << 16), [0, -0.0, 1e-30, 1e5, -1e5]]).astype(np.float32)
    exact = activation.REFERENCES[name](points.astype(np.float64))
    np.testing.assert_allclose(computed(name, points), exact, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize(("name", "rms"), [("gelu", 6e-8), ("silu", 5e-8), ("sigmoid", 4e-8)])
def test_it_is_as_exact_as_pytorchs_own(name: str, rms: float) -> None:
    points = np.random.default_rng(0).standard_normal(1 << 18).astype(np.float32)
    function = {"gelu": functional.gelu, "silu": functional.silu, "sigmoid": torch.sigmoid}[name]
    exact = function(torch.from_numpy(points).double()).numpy()
    ours, torchs = (
        np.sqrt(((got - exact) ** 2).mean())
        for got in (computed(name, points), function(torch.from_numpy(points)).numpy())
    )
    assert ours < rms
    assert ours < 1.5 * torchs


def test_a_sigmoid_is_exact_in_its_last_places_as_far_as_it_reaches() -> None:
    points = np.linspace(-80, 80, 1 << 18).astype(np.float32)
    exact = activation.REFERENCES["sigmoid"](points.astype(np.float64))
    exact = np.where(points < 0, np.exp(points.astype(np.float64)) * (1 - exact), exact)
    assert np.abs(computed("sigmoid", points) / exact - 1).max() < 4e-7


@pytest.mark.parametrize("name", ["gelu", "silu", "sigmoid", "hard_swish", "hard_sigmoid", "relu6"])
def test_it_is_nothing_but_vector_arithmetic_on_a_cortex_a72(name: str) -> None:
    table = targets.load("cortex-a72").tvm
    assert table is not None
    x = tvm.te.placeholder((64,), "float32")
    function = tvm.te.create_prim_func([x, tvm.te.compute((64,), lambda i: activation.expression(name, x[i]))])
    scheduled, _ = plain.schedule(function, plain.Vectors(4, 32))
    module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
    built = tvm.compile(module, target=tvm.target.Target(table.model_dump(mode="json")["target"]))
    assembly = built.mod.inspect_source("asm")
    assert ".4s" in assembly
    assert not any(word in assembly for word in ("erff", "fdiv", "tanhf", "expf", "frecpe"))
