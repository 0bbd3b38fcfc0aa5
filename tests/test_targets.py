"""Targets are data: every file is read, checked, and rejected with its field's name when it is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edge import targets
from edge.errors import InputError, UsageError
from edge.formats import FORMATS, PRECISIONS
from edge.targets.profile import FOLDER


@pytest.fixture(params=targets.names())
def target(request: pytest.FixtureRequest) -> targets.Target:
    return targets.load(request.param)


def test_the_eight_devices_are_there() -> None:
    assert set(targets.names()) == {
        "cortex-a53",
        "cortex-a72",
        "cortex-a76",
        "galaxy-s23",
        "iphone-12",
        "pixel-8",
        "x86-64",
        "x86-64-v4",
    }


def test_formats_and_precisions_exist_and_every_precision_has_a_gate(target: targets.Target) -> None:
    assert set(target.formats) <= set(FORMATS)
    assert set(target.precisions) <= set(PRECISIONS)
    assert set(target.precisions) <= set(target.gates)


def test_peak_follows_from_the_vector_width(target: targets.Target) -> None:
    """A vector multiply-add is 2 x lanes; the peak is a whole number of those, and halving the type doubles it."""
    peak = target.core.peak_flop_per_cycle
    lanes = target.core.vector_bits // 32
    assert peak["fp32"] % (2 * lanes) == 0
    assert peak.get("fp16", 2 * peak["fp32"]) == 2 * peak["fp32"]
    assert ("fp16" in peak) == ("fullfp16" in target.core.features)
    # A dot product multiplies whole registers of bytes; a widening multiply half of one.
    has_dot_product = "dotprod" in target.core.features
    assert peak.get("int8", 0) in ({4 * peak["fp32"]} if has_dot_product else {0, 2 * peak["fp32"]})


def test_tvm_compiles_for_the_core_that_is_described(target: targets.Target) -> None:
    if target.tvm is None:
        assert "tvm" not in target.formats
        return
    assert target.tvm.target["mtriple"] == target.core.triple
    assert target.tvm.target["mcpu"] == target.core.cpu
    assert target.tvm.target["num-cores"] == target.core.cores
    enabled = {flag[1:] for flag in target.tvm.target.get("mattr", ()) if flag[0] == "+"}
    assert enabled <= set(target.core.features)


def test_each_architecture_has_one_baseline() -> None:
    machines = [t.core.machine for t in map(targets.load, targets.names()) if t.baseline]
    assert sorted(machines) == ["aarch64", "x86_64"]
    assert targets.baseline("x86_64").name == "x86-64"
    with pytest.raises(UsageError, match="riscv64"):
        targets.baseline("riscv64")


def test_a_target_cannot_be_changed(target: targets.Target) -> None:
    with pytest.raises(ValueError, match="frozen"):
        target.core.cores = 99  # type: ignore[misc]


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError) as caught:
        targets.load("cortex-a7")
    assert "cortex-a72" in caught.value.next_step


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("cores = 4", "cores = 0", "core.cores"),
        ("cores = 4", "colour = 4", "core.colour"),
        ("l1d_kib = 32", "", "caches.l1d_kib"),
        ('precisions = ["fp32", ', 'precisions = ["fp8", ', "precisions.0"),
        ('formats = ["tvm"', 'formats = ["tvmm"', "formats: there is no format named 'tvmm'"),
        ("[tvm.target]", "[tvm.targets]", "tvm.targets"),
        ("[gates.int8]", "[gates.int4]", "gates"),
        ('name = "cortex-a72"', 'name = "cortex-a73"', "name"),
        ("[core]", "[core", "not TOML"),
    ],
)
def test_a_malformed_file_is_rejected_with_its_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    text = (FOLDER / "cortex-a72.toml").read_text()
    assert old in text
    path = tmp_path / "cortex-a72.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        targets.read(path)
    assert field in caught.value.message
    assert "cortex-a72.toml" in caught.value.message


def test_a_default_format_must_have_its_table(tmp_path: Path) -> None:
    text = (FOLDER / "iphone-12.toml").read_text()
    path = tmp_path / "iphone-12.toml"
    path.write_text(text.replace('formats = ["coreml"', 'formats = ["tvm"'))
    with pytest.raises(InputError, match=r"tvm needs the table \[tvm\]"):
        targets.read(path)


def test_the_profile_survives_the_journey_to_a_worker(target: targets.Target) -> None:
    assert targets.Target.model_validate(target.model_dump(mode="json")) == target
    assert tomllib.loads((FOLDER / f"{target.name}.toml").read_text())["name"] == target.name
