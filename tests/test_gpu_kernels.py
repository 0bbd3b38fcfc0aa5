"""Every GPU schedule computes its operator: awkward shapes, all in one artifact, against float64."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm_ffi
from tvm import te, tirx, topi
from tvm.ir import TensorLoad

from conftest import Sqnr
from edge import targets
from edge.backends.gpu import archive, interfaces, launches, plan
from edge.backends.gpu.program import FLOAT, Call, Program, Tensor
from edge.devices.software_opencl import SoftwareOpenCl
from edge.kernels.gpu.blocks import JOINT
from edge.kernels.gpu.device import Device
from edge.kernels.gpu.schedule import WAYS, schedule
from edge.records import Port, RunJob

OPENCL = interfaces.of(targets.load("pixel-8"))
GATE_DB = 130


@dataclass(frozen=True)
class Convolution:
    """A convolution of NHWC tensors, with bias, ReLU and shortcut.

    Attributes:
        size: rows and columns of the input.
        channels: of the input and of the result.
        kernel, stride, padding: alike in both directions.
        groups: as many as channels for a depthwise one.
        begin: the first of the channels that it reads of a wider input.
        joined: channels that it takes from a first input, all others from a second.
    """

    way: str
    size: tuple[int, int]
    channels: tuple[int, int]
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    begin: int | None = None
    joined: int = 0
    epilogue: bool = False

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        wider = 0 if self.begin is None else self.begin + 5
        whole = (1, *self.size, self.channels[0] + wider)
        return [(1, *self.size, self.joined), whole] if self.joined else [whole]

    @property
    def weights(self) -> list[tuple[int, ...]]:
        kernel = (self.kernel, self.kernel, self.channels[0] // self.groups, self.channels[1])
        return [kernel, (1, 1, 1, self.channels[1])] if self.epilogue else [kernel]

    def function(self) -> tirx.PrimFunc:
        sources = [te.placeholder(shape, "float32", f"source{index}") for index, shape in enumerate(self.inputs)]
        weights = [te.placeholder(shape, "float32", f"weights{index}") for index, shape in enumerate(self.weights)]
        whole = sources[-1]
        shape = (*whole.shape[:-1], self.channels[0])
        if self.begin is not None:
            read = te.compute(shape, lambda n, y, x, c: whole[n, y, x, c + self.begin], "slice")
        elif self.joined:

            def join(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.PrimExpr:
                return tirx.if_then_else(c < self.joined, sources[0][n, y, x, c], whole[n, y, x, c])

            read = te.compute(shape, join, "joined", attrs={JOINT: np.gcd(self.joined, self.channels[0]).item()})
        else:
            read = whole
        result = topi.nn.conv(
            read,
            weights[0],
            self.stride,
            self.padding,
            1,
            self.groups,
            data_layout="NHWC",
            kernel_layout="HWIO",
        )
        if self.epilogue:
            result = topi.nn.relu(topi.add(result, weights[1]))
        return te.create_prim_func([*sources, *weights, result])

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        values = [torch.from_numpy(array).double() for array in arrays]
        sources, weights = values[: len(self.inputs)], values[len(self.inputs) :]
        read = sources[-1]
        if self.begin is not None:
            read = read[..., self.begin : self.begin + self.channels[0]]
        elif self.joined:
            read = torch.cat([sources[0], read[..., self.joined :]], -1)
        result = F.conv2d(
            read.permute(0, 3, 1, 2),
            weights[0].permute(3, 2, 0, 1),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        ).permute(0, 2, 3, 1)
        return (F.relu(result + weights[1]) if self.epilogue else result).numpy()


CASES = {
    "pointwise": Convolution("convolution", (56, 56), (40, 80), epilogue=True),
    "pointwise, odd in all": Convolution("convolution", (7, 13), (17, 31)),
    "pointwise, prime": Convolution("convolution", (29, 29), (6, 10), epilogue=True),
    "pointwise, one channel in": Convolution("convolution", (5, 9), (1, 8)),
    "pointwise, one channel out": Convolution("convolution", (5, 9), (8, 1)),
    "patch embedding": Convolution("convolution", (64, 64), (3, 40), kernel=4, stride=4, epilogue=True),
    "merging, odd": Convolution("convolution", (15, 15), (12, 24), kernel=2, stride=2),
    "dense": Convolution("convolution", (11, 12), (8, 6), kernel=3, stride=2, padding=1),
    "grouped": Convolution("convolution", (9, 9), (16, 16), kernel=3, padding=1, groups=4),
    "partial": Convolution("convolution", (14, 14), (10, 10), kernel=3, padding=1, begin=0),
    "partial, not at the start": Convolution("convolution", (7, 7), (5, 5), kernel=3, padding=1, begin=3),
    "after a partial": Convolution("convolution", (14, 14), (40, 80), joined=10, epilogue=True),
    "after a partial, odd": Convolution("convolution", (5, 7), (15, 9), joined=4),
    "depthwise 3": Convolution("depthwise", (56, 56), (24, 24), kernel=3, padding=1, groups=24, epilogue=True),
    "depthwise 3, stride 2": Convolution("depthwise", (29, 28), (18, 18), kernel=3, stride=2, padding=1, groups=18),
    "depthwise 5": Convolution("depthwise", (13, 11), (7, 7), kernel=5, padding=2, groups=7),
    "depthwise 7": Convolution("depthwise", (14, 14), (32, 32), kernel=7, padding=3, groups=32, epilogue=True),
    "depthwise 7, small": Convolution("depthwise", (3, 3), (8, 8), kernel=7, padding=3, groups=8),
    "depthwise, two a channel": Convolution("convolution", (9, 9), (6, 12), kernel=3, padding=1, groups=6),
    "depthwise 13": Convolution("convolution", (16, 16), (8, 8), kernel=13, padding=6, groups=8),
    "head": Convolution("DLight Reduction", (1, 1), (320, 128), epilogue=True),
    "head, short": Convolution("convolution", (1, 1), (64, 10), epilogue=True),
}


@dataclass(frozen=True)
class Computed:
    way: str
    result: np.ndarray
    reference: np.ndarray


def constant(array: np.ndarray) -> Tensor:
    return Tensor(array.size, FLOAT, FLOAT, array)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Computed]:
    """Every case, from one artifact in one run: arguments are constants, each result is an output."""
    folder = tmp_path_factory.mktemp("kernels")
    random = np.random.default_rng(0)
    calls, ports, compiled, references, ways = [], [], [], [], []
    for index, case in enumerate(CASES.values()):
        arrays = [random.standard_normal(shape).astype(np.float32) for shape in (*case.inputs, *case.weights)]
        references.append(case.reference(*arrays))
        scheduled = schedule(case.function(), OPENCL.target, Device())
        ways.append(scheduled.way)
        compiled.append(launches.lower(scheduled.kernel, f"case{index}", (), OPENCL))
        result = Tensor(references[-1].size, FLOAT, FLOAT)
        calls.append(Call(f"case{index}", tuple(map(constant, arrays)), (result,)))
        ports.append(Port(f"result{index}", references[-1].shape, "", f"result{index}"))
    constants = tuple(tensor for call in calls for tensor in call.reads)
    program = Program((), tuple(call.writes[0] for call in calls), constants, tuple(calls))
    planned = plan.make(program, [function for _, function in compiled], (), tuple(ports))
    source = "".join(source for source, _ in compiled)
    archive.write(folder / "cases.opencl", plan.members(planned, OPENCL, source))
    np.savez(folder / "check.npz", nothing=np.zeros((1, 1), np.float32))
    device = SoftwareOpenCl()
    device.ready(print)
    artifact, check, results = (folder / name for name in ("cases.opencl", "check.npz", "results.npz"))
    run = device.run(RunJob("opencl", artifact, (), tuple(ports), check, results))
    assert run.outputs is not None, run.reason
    outputs = [run.outputs[port.name] for port in ports]
    return dict(zip(CASES, map(Computed, ways, outputs, references), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_computed_by_the_schedule_meant_for_it(
    name: str, computed: dict[str, Computed], sqnr: Sqnr
) -> None:
    case = computed[name]
    assert case.way == CASES[name].way
    assert sqnr(case.reference, case.result) >= GATE_DB


def accesses(kernel: tirx.PrimFunc) -> int:
    """How often all work-items together load from and store to memory; a vector counts once, as it does on a GPU."""
    total, times = 0, 1

    def loop(node: tirx.For, visitor: tvm_ffi.StructuralVisitor) -> None:
        nonlocal times
        length = 1 if node.kind == tirx.ForKind.VECTORIZED else int(node.extent)
        times *= length
        visitor.default_visit(node)
        times //= length

    def access(node: TensorLoad | tirx.BufferStore, visitor: tvm_ffi.StructuralVisitor) -> None:
        nonlocal total
        buffer = node.source if isinstance(node, TensorLoad) else node.buffer
        total += times if buffer.scope() == "global" else 0
        visitor.default_visit(node)

    tvm_ffi.structural_visit(kernel.body, [(tirx.For, loop), ((TensorLoad, tirx.BufferStore), access)])
    return total


@pytest.mark.parametrize(
    ("name", "least"),
    [("pointwise", 30), ("after a partial", 10), ("partial", 5), ("depthwise 3", 20), ("depthwise 7", 5)],
)
def test_our_schedules_spare_memory_where_the_fallback_does_not(name: str, least: float) -> None:
    """What they are for, as far as it can be known without a GPU: the fallback goes to memory for every product."""
    function = CASES[name].function()
    ours, fallback = (
        accesses(kernel)
        for kernel in (
            schedule(function, OPENCL.target, Device()).kernel,
            WAYS["DLight Fallback"](function, OPENCL.target, Device()).mod["main"],
        )
    )
    assert fallback > least * ours


@pytest.mark.parametrize("name", CASES)
def test_groups_are_of_a_size_that_every_phone_takes(name: str) -> None:
    scheduled = schedule(CASES[name].function(), OPENCL.target, Device())
    _, function = launches.lower(scheduled.kernel, "kernel", (), OPENCL)
    largest = Device().group if scheduled.way in ("convolution", "depthwise") else 256
    assert all(1 <= prod(launch.local) <= largest for launch in function.launches)
