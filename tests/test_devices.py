"""Which device a name means, what the emulated core is told to be, and how outputs are compared in bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge import targets
from edge.devices import core_files, slug, takers
from edge.devices.find import find
from edge.errors import SetupError, UsageError
from edge.parity import vectors
from edge.parity.agreement import compare_bits
from edge.parity.vectors import Vectors
from edge.records import EmittedFile, Port, Tool

PORT = Port("image", (1, 3, 8, 8), "NCHW", "image")


def artifact(runtime: str, runs_on: str = "anywhere") -> EmittedFile:
    return EmittedFile(f"tiny.{runtime}", runtime, Tool("a tool", "1"), (PORT,), (PORT,), runs_on)


@pytest.mark.parametrize("target", ["cortex-a53", "cortex-a72", "cortex-a76"])
def test_a_board_is_checked_on_the_host_and_on_its_emulated_core(target: str):
    profile = targets.load(target)
    devices = [find(name, profile) for name in ("host", *profile.checked_on)]

    def names(file: EmittedFile) -> list[str]:
        return [device.name for device in takers(devices, file)]

    assert names(artifact("litert")) == names(artifact("executorch")) == ["host", "emulated"]
    assert names(artifact("coreml")) == ["host"]
    assert names(artifact("tvm", "target")) == ["emulated"]
    assert names(artifact("tvm", "host")) == ["host"]


@pytest.mark.parametrize("target", ["pixel-8", "galaxy-s23"])
def test_a_phone_with_a_gpu_is_checked_on_its_drivers_in_software(target: str):
    profile = targets.load(target)
    gpu, opencl = (find(name, profile) for name in profile.checked_on)
    assert (gpu.name, opencl.name) == ("software-gpu", "software-opencl")
    assert not gpu.obstacle(artifact("litert"))
    assert gpu.obstacle(artifact("executorch"))
    assert not opencl.obstacle(artifact("opencl"))
    assert opencl.obstacle(artifact("litert"))


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("emulate", "cortex-a72", "emulated"),
        ("emulated", "pixel-8", "software-gpu"),
        ("software-gpu", "cortex-a72", "emulated"),
        ("ssh:", "cortex-a72", "ssh://user@board"),
    ],
)
def test_an_unknown_device_says_what_there_is(name: str, target: str, says: str):
    with pytest.raises(UsageError) as caught:
        find(name, targets.load(target))
    assert says in caught.value.next_step


def test_the_emulated_core_says_of_itself_what_the_profile_says(tmp_path: Path):
    core_files.write(targets.load("cortex-a76"), tmp_path)
    cpuinfo = (tmp_path / "proc/cpuinfo").read_text()
    assert "CPU part\t: 0xd0b\n" in cpuinfo
    assert "asimddp" in cpuinfo
    assert cpuinfo.count("processor") == 1
    cache = tmp_path / "sys/devices/system/cpu/cpu0/cache/index0"
    sizes = {name: int((cache / name).read_text()) for name in ("number_of_sets", "ways_of_associativity")}
    assert sizes["number_of_sets"] * sizes["ways_of_associativity"] * 64 == 64 * 1024
    with pytest.raises(SetupError, match=r"\[emulated\]"):
        core_files.write(targets.load("pixel-8"), tmp_path)


def test_a_device_that_runs_few_samples_gets_photographs_and_random_images(tmp_path: Path):
    samples = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    whole = Vectors({"image": samples}, {"logits": samples.astype(np.float64)}, {"logits": samples})
    assert whole.rows(None) == whole.rows(99) == list(range(16))
    assert whole.rows(4) == [0, 4, 8, 12]
    whole.take([0, 4, 8, 12]).save(tmp_path)
    few = vectors.load(tmp_path)
    assert len(few) == 4
    assert few.oracle["logits"].dtype == np.float64
    np.testing.assert_array_equal(few.inputs["image"], samples[[0, 4, 8, 12]])


def test_every_bit_that_differs_is_told():
    host = {"logits": np.float32([[1, 2, 3, 0]]), "features": np.ones((1, 2), np.float32)}
    same = compare_bits(host, {name: values.copy() for name, values in host.items()})
    assert same.identical == 1
    assert same.differing == {}
    other = {**host, "logits": np.float32([[np.nextafter(np.float32(1), 2), 2, 3, -0.0]])}
    found = compare_bits(host, other)
    assert found.identical == pytest.approx(4 / 6)
    assert found.differing == {"logits": 0.5}
    assert 130 < found.sqnr_db < 170


def test_a_device_s_name_is_fit_for_a_file():
    assert slug("ssh://pi@board:22") == "ssh-pi-board-22"


def test_the_emulated_core_runs_fewer_samples_of_a_large_network() -> None:
    """Emulation takes seconds for a multiply-add in a billion: four of FasterNet-T0, one of ConvNeXt-B, never none."""
    target = targets.load("cortex-a72")
    emulated = find("emulated", target)
    assert [emulated.samples(macs) for macs in (335_000_000, 3_000_000_000, 15_000_000_000, 10**12)] == [4, 2, 1, 1]
    assert find("host", target).samples(10**12) is None
