"""Small networks through the patterns, compiled for this host and run: what tests of the patterns share."""

from __future__ import annotations

import platform
from collections import Counter
from typing import Any

import numpy as np
import torch
import tvm
from torch import nn

from edge import targets
from edge.backends.tvm import library, program
from edge.backends.tvm.rewrite import Rewritten, rewrite
from edge.kernels.core import Core
from edge.kernels.template import Choice, Problem, Template

HOST = targets.baseline(platform.machine())
CORE = Core.of(HOST)


def by_rule(template: Template[Any, Any], problem: Problem) -> Choice:
    return template.default(problem, CORE)


def rewritten(network: nn.Module, image: torch.Tensor) -> Rewritten:
    module = program.read(torch.export.export(network, (image,)))
    return rewrite(module, CORE, by_rule)


def check(network: nn.Module, kernels: dict[str, int], shape: tuple[int, ...] = (1, 8, 14, 13)) -> Rewritten:
    """The kernels that were put in, and that the compiled network computes the same as before."""
    torch.manual_seed(0)
    image = torch.randn(shape)
    done = rewritten(network.eval(), image)
    assert done.kernels == Counter(kernels)
    assert HOST.tvm is not None
    module, _ = library.schedule(program.fuse(done.module), CORE, by_rule)
    with tvm.transform.PassContext(opt_level=3):
        target = tvm.target.Target(HOST.tvm.model_dump(mode="json")["target"])
        machine = tvm.relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())
    with torch.no_grad():
        expected = network.double()(image.double())
    results = machine["main"](tvm.runtime.tensor(image.numpy()))
    several = isinstance(expected, tuple)
    for result, exact in zip(results if several else [results], expected if several else [expected], strict=True):
        assert np.abs(result.numpy() - exact.numpy()).max() < 1e-5 * np.abs(exact.numpy()).max()
    return done


def plain(done: Rewritten) -> set[str]:
    """The kernels that no template made."""
    return set(library.schedule(program.fuse(done.module), CORE, by_rule)[1])
