"""What executed blocks cost: classes, modelled cycles, the floor, and where it goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import guest
import numpy as np
import pytest

from conftest import TinyNetwork
from edge import targets
from edge.backends import tvm as backend
from edge.cost import counter, cycles, instructions
from edge.cost.cost import Cost, cost
from edge.cost.places import Places
from edge.devices.emulated import Emulated
from edge.errors import SetupError
from edge.records import RunJob, to_json

CORES = ("cortex-a53", "cortex-a72", "neoverse-n1")
KERNEL = guest.function(
    "kernel",
    """
    mov x1, #1000
1:  fmla v0.4s, v4.4s, v5.4s
    fmla v1.4s, v4.4s, v5.4s
    fmla v2.4s, v4.4s, v5.4s
    fmla v3.4s, v4.4s, v5.4s
    subs x1, x1, #1
    b.ne 1b""",
)


@pytest.mark.parametrize(
    ("text", "kind", "multiplies", "elements"),
    [
        ("fmla v0.4s, v1.4s, v2.s[1]", "vector FMA fp32", "fp32 FMA", 4),
        ("fmls v0.2s, v1.2s, v2.2s", "vector FMA fp32", "fp32 FMA", 2),
        ("fmla v0.8h, v1.8h, v2.8h", "vector FMA fp16", "fp16 FMA", 8),
        ("fmlal v0.4s, v1.4h, v2.4h", "vector FMA fp16", "fp16 FMA", 4),
        ("fmla v0.2d, v1.2d, v2.2d", "other vector fp", "", 0),
        ("fmadd s0, s1, s2, s3", "scalar fp", "fp32 FMA", 1),
        ("fmul v0.4s, v1.4s, v2.4s", "vector multiply fp", "fp32 multiply", 4),
        ("fadd v0.4s, v1.4s, v2.4s", "other vector fp", "", 0),
        ("scvtf v0.4s, v1.4s", "other vector fp", "", 0),
        ("sdot v0.4s, v1.16b, v2.16b", "integer dot product", "integer dot product", 16),
        ("smmla v0.4s, v1.16b, v2.16b", "integer dot product", "integer dot product", 32),
        ("smlal2 v0.8h, v1.16b, v2.16b", "integer vector multiply", "integer multiply", 8),
        ("sqrdmulh v0.8h, v1.8h, v2.h[0]", "integer vector multiply", "integer multiply", 8),
        ("sadalp v0.4s, v1.8h", "other vector integer and permute", "", 0),
        ("add d0, d1, d2", "other vector integer and permute", "", 0),
        ("mul x0, x1, x2", "integer", "", 0),
        ("smull x0, w1, w2", "integer", "", 0),
        ("ld1 { v0.4s, v1.4s }, [x0], #32", "vector load", "", 0),
        ("ldp q0, q1, [x0]", "vector load", "", 0),
        ("ldr s0, [x0]", "vector load", "", 0),
        ("ldrsb w0, [x0]", "load", "", 0),
        ("ldaxr w0, [x0]", "load", "", 0),
        ("st1 { v0.s }[0], [x0]", "vector store", "", 0),
        ("stlxr w0, w1, [x2]", "store", "", 0),
        ("prfm pldl1keep, [x0]", "prefetch", "", 0),
        ("b.ne #-16", "branch", "", 0),
        ("bic x0, x1, x2", "integer", "", 0),
        ("sub sp, sp, #16", "integer", "", 0),
        ("mrs x0, TPIDR_EL0", "other", "", 0),
        ("nop", "other", "", 0),
    ],
)
def test_classes_are_those_of_the_optimization_guides(text: str, kind: str, multiplies: str, elements: int) -> None:
    assert instructions.describe(text) == instructions.Instruction(text, kind, multiplies, elements)


def modelled(core: str, lines: list[str]) -> cycles.Modelled:
    """One block of these lines, each a word of its own."""
    described = {index: instructions.describe(line) for index, line in enumerate(lines)}
    return cycles.model([tuple(described)], described, core)


@pytest.mark.slow
@pytest.mark.parametrize(("core", "latency", "throughput"), zip(CORES, (10, 4, 4), (1, 1, 0.5), strict=True))
def test_multiply_adds_cost_their_latency_in_a_chain_and_their_throughput_apart(
    core: str, latency: float, throughput: float
) -> None:
    chain = modelled(core, ["fmla v0.4s, v30.4s, v31.4s"] * 16)
    apart = modelled(core, [f"fmla v{register}.4s, v30.4s, v31.4s" for register in range(16)])
    assert list(chain.cycles.values()) == pytest.approx([16 * latency], rel=0.01)
    assert list(apart.cycles.values()) == pytest.approx([16 * throughput], rel=0.01)
    assert not chain.left_out | apart.left_out


@pytest.mark.slow
def test_what_the_model_does_not_know_is_named_and_a_call_is_no_hundred_cycles() -> None:
    atomic = modelled("neoverse-n1", ["add x3, x3, x4", "ldadd w0, w1, [x2]"])
    assert atomic.left_out == {"ldadd w0, w1, [x2]"}
    assert max(atomic.cycles.values()) == pytest.approx(1, rel=0.05)  # the addition waits for itself
    described = {0: instructions.describe("ldadd w0, w1, [x2]"), 1: instructions.describe("nop")}
    apart = cycles.model([(0,), (1,)], described, "cortex-a72")
    assert apart.cycles[(0,)] == 0 < apart.cycles[(1,)]
    assert apart.left_out == {"ldadd w0, w1, [x2]"}
    call = modelled("cortex-a72", ["bl #16"])
    assert max(call.cycles.values()) <= 2 and not call.left_out
    with pytest.raises(SetupError, match="not a recognized"):
        modelled("cortex-a7x", ["nop"])


@pytest.fixture
def kernel(tmp_path: Path) -> guest.Counted:
    return guest.count(tmp_path, "bl kernel", functions=KERNEL, caches=targets.load("cortex-a72").caches)


@pytest.mark.slow
def test_a_kernel_at_the_peak_costs_its_floor(kernel: guest.Counted) -> None:
    found = cost(kernel.profile, kernel.places, targets.load("cortex-a72"), macs=16_000)
    assert found.instructions == 1 + 1 + 6 * 1000 + 1
    assert found.vector_fma == found.classes["vector FMA fp32"] == 4000
    assert found.audit.multiplications == {"fp32 FMA": 16_000}
    assert found.floor_cycles == 4000  # 16,000 multiply-adds, two operations each, eight a cycle
    assert found.modelled_cycles == pytest.approx(4000, rel=0.01)
    assert found.share_of_floor == pytest.approx(1, rel=0.01)
    assert (found.hottest[0].place.function, found.hottest[0].executions) == ("kernel", 1000)
    assert found.hottest[0].listing[0].startswith("fmla v0.4s")
    assert sum(spot.instructions for spot in found.hottest) == found.instructions
    assert json.loads(json.dumps(to_json(found)))["hottest"][0]["place"]["library"] == "program"


@pytest.mark.slow
def test_overlapping_blocks_are_one_spot(kernel: guest.Counted) -> None:
    """The block that enters the loop holds its body once more."""
    overlapping = [block for block in kernel.profile.blocks if len(block.words) in (6, 7)]
    assert len(overlapping) == 2
    spots = cost(kernel.profile, kernel.places, targets.load("cortex-a72"), macs=1).hottest
    assert [spot.instructions for spot in spots if spot.place.function == "kernel"] == [6001, 1]


@pytest.mark.slow
def test_a_target_without_a_peak_for_what_ran_has_no_floor(tmp_path: Path) -> None:
    counted = guest.count(tmp_path, "fmla v0.8h, v1.8h, v2.8h", target="cortex-a76")
    target = targets.load("cortex-a76")
    core = target.core.model_copy(update={"peak_flop_per_cycle": {"fp32": 16}})
    found = cost(counted.profile, counted.places, target.model_copy(update={"core": core}), macs=8)
    assert (found.floor_cycles, found.share_of_floor, found.memory) == (None, None, None)
    assert cost(counted.profile, counted.places, target, macs=800).floor_cycles == 2 * 800 / 32


@pytest.mark.slow
def test_nothing_between_the_markers_is_an_error(tmp_path: Path) -> None:
    counted = guest.count(tmp_path, "")
    with pytest.raises(SetupError, match="nothing was executed"):
        cost(counted.profile, counted.places, targets.load("cortex-a72"), macs=1)


@pytest.mark.slow
def test_several_threads_and_unseen_stores_are_told(kernel: guest.Counted, tmp_path: Path) -> None:
    counted = guest.count(tmp_path / "cleared", "dc zva, x2\n dc zva, x2")
    found = cost(counted.profile, counted.places, targets.load("cortex-a72"), macs=1)
    assert found.unknown[-1].startswith("2 instructions cleared")
    assert any("Cortex-A57" in sentence for sentence in found.unknown)
    threads = cost(replace(kernel.profile, threads=2), kernel.places, targets.load("cortex-a72"), macs=1)
    assert threads.unknown[-1].startswith("2 threads ran")


@pytest.mark.slow
def test_a_network_costs_the_same_twice_and_its_operators_are_named(tiny: TinyNetwork, tmp_path: Path) -> None:
    """The saved library of a whole network, in TVM's own runtime, counted in two folders."""
    target = targets.load("cortex-a72")
    job = tiny.job("tvm", tmp_path / "emitted", "fp32")
    files = backend.emit(job, backend.prepare(job), "fp32")
    file = next(file for file in files if file.runs_on == "target")
    device = Emulated(target)
    device.ready(lambda _: None)
    macs = 1_000_000
    found: list[Cost] = []
    for folder in (tmp_path / "a", tmp_path / "another" / "and" / "deeper"):
        folder.mkdir(parents=True)
        run = RunJob("tvm", job.folder / file.file, file.inputs, file.outputs, job.check_inputs, folder / "outputs.npz")
        done = device.count(run)
        assert done.executed is not None, done.reason
        assert done.outputs is not None and np.isfinite(done.outputs["logits"]).all()
        places = Places(done.libraries, done.executed.parent)
        found.append(cost(counter.read(done.executed), places, target, macs))
    assert found[0] == found[1]
    assert found[0].audit.ran == "fp32 FMA" and not found[0].audit.reason
    assert found[0].memory is not None and found[0].memory.loaded_bytes > 0
    operators = {spot.place.operator for spot in found[0].hottest}
    assert any("pointwise" in operator for operator in operators)
    assert found[0].hottest[0].place.operator and found[0].hottest[0].place.library == file.file
    assert sum(spot.share for spot in found[0].hottest) > 0.4
