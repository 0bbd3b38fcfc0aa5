"""What the evaluator reads from disk: the package, the weight file, the constants; and what it refuses."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import mil_files
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.libmilstoragepython import _BlobStorageWriter as BlobWriter
from coremltools.proto import MIL_pb2

from edge.runtimes.mil import MilError, Program
from edge.runtimes.mil.dtypes import ELEMENT_TYPES, TensorType
from edge.runtimes.mil.values import unpack_bits
from edge.runtimes.mil.weights import WeightFile

X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 12)
WEIGHT = np.arange(36, dtype=np.float32).reshape(3, 12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """relu(linear(x)): one weight in the weight file, one immediate bias."""
    path = tmp_path_factory.mktemp("package") / "m.mlpackage"
    bias = np.array([1, 2, 3], np.float32)
    return mil_files.save(path, [X], lambda x: mb.relu(x=mb.linear(x=x, weight=WEIGHT, bias=bias)))


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "m.mlpackage"))


def test_the_program_is_read_as_declared(saved: Path) -> None:
    program = Program(saved)
    assert {name: str(t) for name, t in program.inputs.items()} == {"x0": "FLOAT32[2, 12]"}
    assert program.opset == "CoreML6"
    np.testing.assert_allclose(*program({"x0": X}).values(), np.maximum(X @ WEIGHT.T + [1, 2, 3], 0), rtol=1e-6)


# The packed values of eleven elements of each type, least significant bit first, as coremltools' writer packs them.
SUB_BYTE = {"INT4": "int4", "UINT1": "uint1", "UINT2": "uint2", "UINT3": "uint3", "UINT4": "uint4", "UINT6": "uint6"}
WHOLE = {"INT8": "i1", "UINT8": "u1", "INT16": "i2", "UINT16": "u2", "INT32": "i4", "UINT32": "u4", "FLOAT32": "f4"}


def element_range(name: str) -> np.ndarray:
    """Eleven values that use every bit."""
    bits = ELEMENT_TYPES[name].bits
    if name.startswith("FLOAT"):
        return np.linspace(-3, 3, 11)
    low = -(1 << (bits - 1)) if name.startswith("INT") else 0
    return np.linspace(low, low + (1 << bits) - 1, 11).round()


@pytest.mark.parametrize("name", [*SUB_BYTE, *WHOLE, "FLOAT16"])
def test_weight_records_of_every_type(name: str, tmp_path: Path) -> None:
    """Written by coremltools' own writer, read by ours, with the size and the padding that go with the type."""
    values = element_range(name)
    writer = BlobWriter(str(tmp_path / "weight.bin"))
    if name in SUB_BYTE:
        builtin = types.nptype_from_builtin(getattr(types, SUB_BYTE[name]))
        offset = getattr(writer, f"write_{SUB_BYTE[name]}_data")(values.astype(builtin))
    elif name == "FLOAT16":
        offset = writer.write_fp16_data(values.astype(np.float16).view(np.uint16))
    else:
        method = "float" if name == "FLOAT32" else name.lower()
        offset = getattr(writer, f"write_{method}_data")(values.astype(WHOLE[name]))
    del writer
    declared = TensorType(ELEMENT_TYPES[name], (11,))
    raw = WeightFile(tmp_path / "weight.bin").read(offset, declared)
    assert len(raw) == declared.size
    if name in SUB_BYTE:
        bits = declared.element.bits
        got = unpack_bits(np.frombuffer(raw, np.uint8), bits, 11).astype(int)
        if name == "INT4":
            got = np.where(got < 8, got, got - 16)
    else:
        got = np.frombuffer(raw, "f2" if name == "FLOAT16" else WHOLE[name])
    np.testing.assert_array_equal(got, values.astype(got.dtype))


def test_bits_are_packed_from_the_least_significant() -> None:
    """Three bits each: 5, 3, 6, 1 is 101 011 110 001, read from the right: 01_110_011_101 and 001_1 over two bytes."""
    packed = np.array([0b10_011_101, 0b0000_001_1], np.uint8)
    np.testing.assert_array_equal(unpack_bits(packed, 3, 4), [5, 3, 6, 1])


@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_signed_and_unsigned_nibbles_of_a_program(name: str, tmp_path: Path) -> None:
    data = np.arange(16).reshape(2, 8) - (8 if name == "int4" else 0)
    weight = data.astype(types.nptype_from_builtin(getattr(types, name)))
    zeros = np.zeros((2, 8), np.float32)

    def build(x: Any) -> Any:
        scale = np.ones((1, 1), np.float32)
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=weight, scale=scale))

    program = Program(mil_files.save(tmp_path / "m.mlpackage", [zeros], build, ct.target.iOS18))
    np.testing.assert_array_equal(*program({"x0": zeros}).values(), data)


def overwrite(package: Path, offset: int, raw: bytes) -> None:
    path = package / mil_files.WEIGHTS
    data = bytearray(path.read_bytes())
    data[offset : offset + len(raw)] = raw
    path.write_bytes(data)


# The one record of the fixture's weight file starts at 64, its data at 128.
DAMAGE = {
    "version 3, expected 2": (4, struct.pack("<I", 3)),
    "sentinel 0xdeadbeee instead of 0xdeadbeef": (64, struct.pack("<I", 0xDEADBEEE)),
    "holds type 1, the program declares FLOAT32": (68, struct.pack("<I", 1)),
    "140 bytes with 0 padding bits, the program declares": (72, struct.pack("<Q", 140)),
    "not aligned": (80, struct.pack("<Q", 129)),
    "reaches outside the file": (80, struct.pack("<Q", 1 << 20)),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_weight_file_is_refused(message: str, package: Path) -> None:
    overwrite(package, *DAMAGE[message])
    with pytest.raises(MilError, match=message):
        Program(package)


def test_a_cut_weight_file_is_refused(package: Path) -> None:
    weights = package / mil_files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(MilError, match="outside the file"):
        Program(package)
    weights.unlink()
    with pytest.raises(MilError, match=r"weight\.bin: cannot be read"):
        Program(package)


def test_a_package_without_a_model_is_refused(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["rootModelIdentifier"] = "nobody"
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MilError, match="not a readable package"):
        Program(package)


def retype(block: MIL_pb2.Block) -> None:
    block.operations[-1].type = "relu_squared"


def add_argument(block: MIL_pb2.Block) -> None:
    relu = block.operations[-1]
    relu.inputs["slope"].CopyFrom(relu.inputs["x"])


def drop_argument(block: MIL_pb2.Block) -> None:
    del block.operations[-1].inputs["x"]


def misname(block: MIL_pb2.Block) -> None:
    block.operations[-1].inputs["x"].arguments[0].name = "nothing"


def make_symbolic(block: MIL_pb2.Block) -> None:
    block.operations[-1].outputs[0].type.tensorType.dimensions[0].unknown.variadic = False


def make_list(block: MIL_pb2.Block) -> None:
    block.operations[-1].outputs[0].type.listType.SetInParent()


def make_double(block: MIL_pb2.Block) -> None:
    block.operations[-1].outputs[0].type.tensorType.dataType = MIL_pb2.FLOAT64


REFUSED: dict[str, Callable[[MIL_pb2.Block], None]] = {
    r"relu_squared -> relu_\d \(CoreML6\): unknown operation": retype,
    r"relu -> relu_\d \(CoreML6\): unknown argument slope": add_argument,
    r"relu -> relu_\d \(CoreML6\): missing argument x": drop_argument,
    r"relu -> relu_\d \(CoreML6\): argument nothing is not defined": misname,
    "a dimension is symbolic": make_symbolic,
    "unsupported value type: listType": make_list,
    "unsupported element type: FLOAT64": make_double,
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_implemented_is_refused_when_read(message: str, package: Path) -> None:
    mil_files.edit(package, REFUSED[message])
    with pytest.raises(MilError, match=message):
        Program(package)


def reshape_output(block: MIL_pb2.Block) -> None:
    block.operations[-1].outputs[0].type.tensorType.dimensions[1].constant.size = 4


def halve_output(block: MIL_pb2.Block) -> None:
    block.operations[-1].outputs[0].type.tensorType.dataType = MIL_pb2.FLOAT16


def make_integer(block: MIL_pb2.Block) -> None:
    block.operations[-1].outputs[0].type.tensorType.dataType = MIL_pb2.INT32


UNTRUE: dict[str, Callable[[MIL_pb2.Block], None]] = {
    r"relu -> .*: declared FLOAT32\[2, 4\], computed shape \[2, 3\]": reshape_output,
    r"relu -> .*: declared FLOAT16\[2, 3\], its floating-point input is torch.float32": halve_output,
    r"relu -> .*: declared INT32\[2, 3\], its floating-point input is torch.float32": make_integer,
}


@pytest.mark.parametrize("message", UNTRUE)
def test_every_result_is_held_to_its_declaration(message: str, package: Path) -> None:
    mil_files.edit(package, UNTRUE[message])
    program = Program(package)
    with pytest.raises(MilError, match=message):
        program({"x0": X})


@pytest.mark.parametrize("feed", [{}, {"y": X}, {"x0": X, "y": X}, {"x0": X[:1]}])
def test_a_feed_must_fit(feed: dict[str, np.ndarray], saved: Path) -> None:
    with pytest.raises(MilError, match="input"):
        Program(saved)(feed)


def test_every_float16_result_is_rounded_once_and_overflows_as_float16_does(tmp_path: Path) -> None:
    """1 + 2^-10 + 2^-11 lies between two float16 numbers and goes to the even one, 1 + 2^-9; so does the way back."""
    x = np.array([[1 + 2.0**-10, 60000.0]], np.float16)
    y = np.array([[2.0**-11, 60000.0]], np.float16)

    def build(x: Any, y: Any) -> Any:
        total = mb.add(x=x, y=y)
        return mb.sub(x=total, y=y)

    seen: dict[str, torch.Tensor] = {}
    program = Program(mil_files.save(tmp_path / "m.mlpackage", [x, y], build))
    (got,) = program({"x0": x, "x1": y}, observe=seen.__setitem__).values()
    (total, _) = seen.values()
    assert total.dtype == torch.float16
    np.testing.assert_array_equal(total.numpy(), np.array([[1 + 2.0**-9, np.inf]], np.float16))
    np.testing.assert_array_equal(got, np.array([[1 + 2.0**-9, np.inf]], np.float16))


def test_inputs_are_rounded_to_the_declared_type(tmp_path: Path) -> None:
    x = np.array([[1 + 2.0**-12, 3.0]], np.float16)
    program = Program(mil_files.save(tmp_path / "m.mlpackage", [x], lambda x: mb.relu(x=x)))
    (got,) = program({"x0": np.array([[1 + 2.0**-12, 3.0]], np.float32)}).values()
    np.testing.assert_array_equal(got, np.array([[1.0, 3.0]], np.float16))
