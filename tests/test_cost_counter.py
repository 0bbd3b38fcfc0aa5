"""The counter counts what a program executes between the markers: exactly, and the same every time."""

from __future__ import annotations

from pathlib import Path

import guest
import pytest

from edge import targets
from edge.cost import counter, instructions
from edge.errors import ExportError, SetupError
from edge.targets.profile import Caches

pytestmark = pytest.mark.slow  # the first of them unpacks the tools for Arm

CACHES = Caches(l1d_kib=32, l1d_ways=2, l2_kib=1024, l2_ways=16, line_bytes=64)
LOOP = """
    mov x1, #1000
1:  fmla v0.4s, v4.4s, v5.4s
    fmla v1.4s, v4.4s, v5.4s
    fmla v2.4s, v4.4s, v5.4s
    ldp q6, q7, [x2]
    str q6, [x2]
    subs x1, x1, #1
    b.ne 1b
"""


def walk(lines: int, stride: int, passes: int) -> str:
    """Load one word of each of some addresses, several times over."""
    return f"""
    mov x3, #{passes}
1:  mov x1, #{lines}
    mov x4, x2
2:  ldr w5, [x4]
    add x4, x4, #{stride}
    subs x1, x1, #1
    b.ne 2b
    subs x3, x3, #1
    b.ne 1b
"""


def test_a_loop_is_counted_to_the_instruction(tmp_path: Path) -> None:
    profile = guest.count(tmp_path, LOOP, before=LOOP, caches=CACHES).profile
    decoded = instructions.decode(profile.executions())
    assert {decoded[word].text: count for word, count in profile.executions().items()} == {
        "mov x1, #1000": 1,
        **{f"fmla v{i}.4s, v4.4s, v5.4s": 1000 for i in range(3)},
        "ldp q6, q7, [x2]": 1000,
        "str q6, [x2]": 1000,
        "subs x1, x1, #1": 1000,
        "b.ne #-24": 1000,
    }
    assert profile.memory == counter.Memory(loaded_bytes=32_000, stored_bytes=16_000, l1d_misses=0, l2_misses=0)
    assert profile.threads == 1


def test_the_same_twice_and_from_another_folder(tmp_path: Path) -> None:
    profiles = [guest.count(tmp_path / name, LOOP, caches=CACHES).profile for name in ("a", "a", "a/longer/name")]
    assert profiles[0] == profiles[1] == profiles[2]


def test_without_caches_the_counts_are_the_same(tmp_path: Path) -> None:
    with_caches = guest.count(tmp_path / "a", LOOP, caches=CACHES).profile
    without = guest.count(tmp_path / "b", LOOP).profile
    assert without.memory is None
    assert without.blocks == with_caches.blocks


def test_markers_may_stand_in_one_block(tmp_path: Path) -> None:
    """Only what is between them counts, also where no branch parts them; and the last pair stands."""
    profile = guest.count(
        tmp_path, "add x6, x6, x7\n add x6, x6, x7", before="hint #112\n nop\n nop\n hint #113"
    ).profile
    assert sum(profile.executions().values()) == 2


@pytest.mark.parametrize(
    ("what", "lines", "stride", "l1d", "l2"),
    [
        ("fits the first cache", 256, 64, 0, 0),
        ("twice the first cache, in order: what comes next has just gone", 1024, 64, 4 * 1024, 0),
        ("two lines of one set of two ways", 2, 16 * 1024, 0, 0),
        ("three lines of one set of two ways", 3, 16 * 1024, 4 * 3, 0),
        ("seventeen lines of one set of the second cache, of sixteen ways", 16 + 1, 64 * 1024, 4 * 17, 4 * 17),
    ],
)
def test_misses_of_a_pattern_are_those_of_the_caches(
    tmp_path: Path, what: str, lines: int, stride: int, l1d: int, l2: int
) -> None:
    """Four passes after one that warmed the caches up."""
    profile = guest.count(tmp_path, walk(lines, stride, 4), before=walk(lines, stride, 1), caches=CACHES).profile
    assert profile.memory == counter.Memory(4 * lines * 4, 0, l1d, l2), what


def test_cold_lines_miss_once_and_a_straddling_load_touches_two(tmp_path: Path) -> None:
    profile = guest.count(tmp_path, "ldr x5, [x2]\n ldr x5, [x2, #8]\n ldur x5, [x2, #252]", caches=CACHES).profile
    assert profile.memory == counter.Memory(24, 0, l1d_misses=3, l2_misses=3)


@pytest.mark.parametrize("missing", ["hint #112\n", "hint #113\n"])
def test_a_program_without_a_marker_is_told_so(tmp_path: Path, missing: str) -> None:
    program = guest.assemble(tmp_path, "nop", program=guest.PROGRAM.replace(missing, "nop\n"))
    written = guest.run(program, "cortex-a72")
    with pytest.raises(ExportError, match="did not reach both markers") as caught:
        counter.read(written)
    assert "edge/runners" in caught.value.next_step


@pytest.mark.parametrize("text", ["", "threads=1\n400000 many d503201f\n", "threads=1 unheard_of=3\n", "<html>"])
def test_what_is_no_profile_is_told_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "executed.txt").write_text(text)
    with pytest.raises(ExportError, match="no profile"):
        counter.read(tmp_path / "executed.txt")


def test_a_folder_with_a_comma_is_no_other_argument(tmp_path: Path) -> None:
    assert guest.count(tmp_path / "a,cache=b", LOOP).profile.memory is None


def test_caches_without_associativity_cannot_be_modelled(tmp_path: Path) -> None:
    caches = targets.load("cortex-a72").caches.model_copy(update={"l1d_ways": None})
    with pytest.raises(SetupError, match="associativity"):
        counter.options(tmp_path / "counter.so", tmp_path / "executed.txt", caches)
