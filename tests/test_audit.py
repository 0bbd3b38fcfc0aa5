"""The instruction audit: nothing the device lacks gets by, also where the emulator would have let it."""

from __future__ import annotations

from pathlib import Path

import guest
import pytest

from edge import targets
from edge.cost.audit import Audit, audit

pytestmark = pytest.mark.slow  # the first of them unpacks the tools for Arm


def audited(folder: Path, body: str, *, runs_on: str, audited_for: str) -> Audit:
    """Run a function where its instructions exist, and audit what it executed for a target."""
    counted = guest.count(folder, "bl kernel", functions=guest.function("kernel", body), target=runs_on)
    return audit(counted.profile, counted.places, targets.load(audited_for).core.features)


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("dot product", "sdot v0.4s, v1.16b, v2.16b"),
        ("fp16 arithmetic", "fmla v0.8h, v1.8h, v2.8h"),
        ("atomics", "ldadd w0, w1, [x2]"),
        ("AES", "aese v0.16b, v1.16b"),
    ],
)
def test_what_the_a72_of_a_raspberry_pi_lacks_is_found_with_its_place(
    tmp_path: Path, name: str, instruction: str
) -> None:
    lacking = audited(tmp_path / "a72", f"nop\n {instruction}", runs_on="cortex-a76", audited_for="cortex-a72")
    (found,) = lacking.lacking
    assert (found.text, found.executions, found.words) == (instruction, 1, 1)
    assert (found.place.function, found.place.library) == ("kernel", "program")
    assert instruction in lacking.reason and "kernel in program" in lacking.reason
    own = audited(tmp_path / "a76", f"nop\n {instruction}", runs_on="cortex-a76", audited_for="cortex-a76")
    assert not own.lacking and not own.reason


def test_the_emulator_alone_would_let_aes_pass(tmp_path: Path) -> None:
    """QEMU's Cortex-A72 executes it; Broadcom's does not."""
    found = audited(tmp_path, "aese v0.16b, v1.16b", runs_on="cortex-a72", audited_for="cortex-a72")
    assert [lacking.text for lacking in found.lacking] == ["aese v0.16b, v1.16b"]


def test_plain_armv8_passes(tmp_path: Path) -> None:
    body = "fmla v0.4s, v1.4s, v2.4s\n crc32w w0, w0, w1\n mrs x0, tpidr_el0\n prfm pldl1keep, [x2]\n dmb ish"
    assert not audited(tmp_path, body, runs_on="cortex-a72", audited_for="cortex-a53").lacking


def test_many_of_a_kind_in_one_function_are_one_finding(tmp_path: Path) -> None:
    body = "sdot v0.4s, v1.16b, v2.16b\n sdot v3.4s, v1.16b, v2.16b\n udot v0.4s, v1.16b, v2.16b"
    found = audited(tmp_path, body, runs_on="cortex-a76", audited_for="cortex-a72")
    assert sorted((lacking.text.split()[0], lacking.words) for lacking in found.lacking) == [("sdot", 2), ("udot", 1)]
    assert found.reason.endswith("1 more places")


@pytest.mark.parametrize(
    ("body", "multiplications", "ran"),
    [
        ("fmla v0.4s, v1.4s, v2.4s\n fmla v0.4s, v1.4s, v2.4s", {"fp32 FMA": 8}, "fp32 FMA"),
        ("fmla v0.8h, v1.8h, v2.8h\n fmla v0.4s, v1.4s, v2.4s", {"fp32 FMA": 4, "fp16 FMA": 8}, "fp16 FMA"),
        ("sdot v0.4s, v1.16b, v2.16b", {"integer dot product": 16}, "integer dot product"),
        (
            "smull v0.8h, v1.8b, v2.8b\n fmul v0.4s, v1.4s, v2.4s",
            {"fp32 multiply": 4, "integer multiply": 8},
            "integer multiply",
        ),
        ("nop", {}, ""),
    ],
)
def test_the_precision_that_really_ran_is_told(
    tmp_path: Path, body: str, multiplications: dict[str, int], ran: str
) -> None:
    found = audited(tmp_path, body, runs_on="cortex-a76", audited_for="cortex-a76")
    assert (found.multiplications, found.ran) == (multiplications, ran)


def test_an_int8_artifact_that_computes_in_float_is_remarked_on(tmp_path: Path) -> None:
    found = audited(tmp_path, "fmla v0.4s, v1.4s, v2.4s", runs_on="cortex-a72", audited_for="cortex-a72")
    assert found.remark("int8") == "100% of its multiplications are not int8: most ran as fp32 FMA"
    assert found.remark("fp32") == ""
