"""The operators' page: the right figures in the right rows, from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge import targets
from edge.bench import operators
from edge.bench.dense_peer import DensePeer
from edge.kernels.core import Core
from edge.kernels.registry import template
from edge.tuning.records import Measurement, Record, Records
from edge.tuning.tune import Plan

A72 = targets.load("cortex-a72")


def record(kernel: dict[str, Any], share: float) -> Record:
    """A record of a kernel that reaches a share of the A72's peak."""
    kind = template(kernel["template"])
    problem = kind.problems.from_json(kernel["problem"])
    measured = Measurement(
        runner="emulated",
        device="QEMU cortex-a72",
        unit="modelled cycles",
        cost=problem.macs / 4 / share,
        default=None,
        tools={},
    )
    return Record(
        problem=problem.key,
        template=kind.name,
        shape=problem.to_json(),
        macs=problem.macs,
        bytes=problem.bytes,
        choice={},
        measured=measured,
    )


SHARES = {"dense 3x3": 0.9, "16 groups 3x3": 0.5, "depthwise 3x3": 0.4, "partial 3x3": 0.8}


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The page of records that have the shares of ``SHARES``, and the large kernels half of the peak."""
    found = operators.operators()
    kernels: dict[str, Record] = {}
    for operator in found:
        for kernel in operator.kernels:
            kernels.setdefault(repr(kernel), record(kernel, SHARES.get(operator.name, 0.5)))
    records = Records(target="cortex-a72", records=tuple(kernels.values()))
    peer = DensePeer("LiteRT 1.0", 1e9)
    file = operators.write(Plan(A72, "emulated"), records, peer, tmp_path)
    assert file.with_suffix(".png").stat().st_size > 10_000
    return file.read_text()


def test_every_operator_of_the_table_is_a_kernel_that_a_template_has() -> None:
    core = Core.of(A72)
    for operator in operators.operators():
        for kernel in operator.kernels:
            kind = template(kernel["template"])
            assert kind.space(kind.problems.from_json(kernel["problem"]), core)


def test_partial_convolution_of_a_quarter_has_a_sixteenth_of_the_operations() -> None:
    by = {(o.name, o.side): record(o.kernels[0], 1).macs for o in operators.operators()}
    for _, side in operators.SIZES:
        assert by["dense 3x3", side] == 16 * by["partial 3x3", side] == 16 * by["16 groups 3x3", side]


def test_the_page_has_each_operator_with_its_share_of_the_peak(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| ") and "²" in line]
    assert len(rows) == 5 * len(operators.SIZES) + 4
    for row in rows:
        name, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        if name in SHARES:
            assert f"| {SHARES[name]:.1%} |" in row
    assert "computes 2.00 to 2.00 times as many operations a second as depthwise convolution" in page
    assert "10.5 on GPU, 6.2 on CPU, 22.8 on ARM" in page


def test_the_shiftwise_operator_is_compared_with_the_dense_kernel_of_the_best_peer(page: str) -> None:
    assert "| depthwise 51x51, LiteRT 1.0 | 96 × 56² |" in page
    (shift,) = (o for o in operators.operators() if o.name == "shift-wise 51")
    cost = record(shift.kernels[0], 0.5).measured.cost
    assert f"{1e9 / cost:.1f} times as fast as dense depthwise 51×51 through the best peer, LiteRT 1.0" in page


def test_the_page_says_what_partial_and_pointwise_convolution_take_together(page: str) -> None:
    # The 9/16 c² multiply-adds of the one are at 80 % of the peak, the 2 c² of the other at half of it.
    pointwise, partial = 2 / 0.5, 9 / 16
    share = (pointwise + partial / 0.8) / (pointwise + partial)
    assert f"take {share:.2f} to {share:.2f} times what the pointwise one takes by itself" in page


def test_the_page_says_which_traffic_depthwise_convolution_needs(page: str) -> None:
    needs = []
    for operator in operators.operators():
        if operator.name == "depthwise 3x3":
            found = record(operator.kernels[0], SHARES[operator.name])
            needs.append(found.bytes / found.measured.cost)
    assert f"needs {min(needs):.1f} to {max(needs):.1f} bytes a cycle" in page
