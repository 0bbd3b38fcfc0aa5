"""Kernels that no template makes: draws of TVM's stock rules compute the same, and the same draws come again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from kernel_rig import sample
from network_rig import CORE, by_rule, rewritten
from torch import nn
from tvm import relax, te

from edge.backends.tvm import library, program
from edge.kernels.stock import PLAIN, Stock, StockProblem, StockTemplate
from edge.kernels.template import Choice, Problem, Template

TEMPLATE = StockTemplate()
NETWORK = nn.Sequential(nn.Conv2d(3, 16, 1), nn.MaxPool2d(3, 2, 1), nn.Softmax(1)).eval()


def problems() -> list[StockProblem]:
    module = program.fuse(rewritten(NETWORK, torch.zeros(1, 3, 28, 28)).module)
    return [library.problem(*named) for named in library.unscheduled(module)]


@pytest.fixture(scope="module", params=["max_pool2d", "softmax"])
def problem(request: pytest.FixtureRequest) -> StockProblem:
    (found,) = (one for one in problems() if one.name == request.param)
    return found


def test_draws_compute_what_the_kernel_computes_without_a_schedule(problem: StockProblem) -> None:
    shapes = [tuple(map(int, parameter.shape)) for parameter in problem.unscheduled.params]
    inputs = [np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in shapes[:-1]]
    expected = TEMPLATE.reference(problem, *inputs)
    space = TEMPLATE.space(problem, CORE)
    assert len(space) > 1
    assert TEMPLATE.default(problem, CORE) == space[0] == Stock(PLAIN)
    for choice in sample(space, 6):
        module = tvm.IRModule({"main": TEMPLATE.kernel(problem, choice, CORE).with_attr("global_symbol", "main")})
        result = tvm.runtime.empty(shapes[-1], "float32")
        tvm.compile(module, target="llvm")["main"](*map(tvm.runtime.tensor, inputs), result)
        assert np.allclose(result.numpy(), expected, atol=1e-6)


def test_a_problem_is_the_same_under_another_number_and_comes_back_from_a_record(problem: StockProblem) -> None:
    again = StockProblem.of(f"{problem.name}3", problem.unscheduled)
    assert again == problem == StockProblem.from_json(problem.to_json())
    assert problem.key.startswith(f"{problem.name} 1x")
    assert problem.bytes == 4 * sum(np.prod([int(n) for n in p.shape]) for p in problem.unscheduled.params)


def test_a_problem_is_the_same_wherever_its_kernels_inputs_come_from() -> None:
    def added(*names: str) -> StockProblem:
        one, other = (te.placeholder((4, 8), name=name) for name in names)
        kernel = te.create_prim_func([one, other, te.compute((4, 8), lambda *at: one(*at) + other(*at), name="sum")])
        return StockProblem.of(f"add{len(names[0])}_multiply2", kernel)

    assert added("lv7", "lv9") == added("lv1234", "x")
    assert added("lv7", "lv9").name == "add_multiply"
    assert StockProblem.of("max_pool2d1", added("a", "b").unscheduled).name == "max_pool2d"


def test_another_process_draws_the_same(problem: StockProblem) -> None:
    last = TEMPLATE.space(problem, CORE)[-1]
    program = (
        "import sys; from edge.kernels.stock import *; "
        "from edge.kernels.core import Core; "
        f"core = {CORE!r}; problem = StockProblem({problem.name!r}, sys.stdin.read()); "
        f"print(tvm.ir.save_json(StockTemplate().kernel(problem, {last!r}, core)), end='')"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], input=problem.function, capture_output=True, text=True, check=True
    )
    assert other.stdout == tvm.ir.save_json(TEMPLATE.kernel(problem, last, CORE))


def test_a_record_of_a_draw_is_what_the_library_is_made_with(problem: StockProblem) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 28, 28)
    module = program.fuse(rewritten(NETWORK, image).module)

    def recorded(template: Template[Any, Any], asked: Problem) -> Choice:
        return Stock(1) if asked == problem else by_rule(template, asked)

    _, plain = library.schedule(module, CORE, by_rule)
    scheduled, ways = library.schedule(module, CORE, recorded)
    assert {name for name in ways if ways[name] != plain[name]} == {problem.name}
    assert ways[problem.name] == "by stock rules"
    machine = relax.VirtualMachine(tvm.compile(scheduled, target="llvm"), tvm.cpu())
    with torch.no_grad():
        assert np.abs(machine["main"](tvm.runtime.tensor(image.numpy())).numpy() - NETWORK(image).numpy()).max() < 1e-5
