"""What a target is: the fields of its TOML file, checked when it is read."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import InputError, UsageError
from edge.formats import FORMATS, PRECISIONS

FOLDER = Path(__file__).parent

Precision = Literal["fp32", "fp16", "int8"]
Count = Annotated[int, Field(gt=0)]


class _Record(BaseModel):
    """Unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Core(_Record):
    """The core that inference runs on; of several kinds in one chip, the fastest.

    Attributes:
        triple: LLVM's name for architecture and system.
        cpu: LLVM's and GCC's name for the core.
        features: instruction-set extensions that the device really has, in LLVM's names.
        cores: how many of this core the device has.
        clock_ghz: nominal, in GHz.
        vector_bits: width of one vector register.
        vector_registers: how many there are.
        peak_flop_per_cycle: of one core, a multiply-add counting as two; by the precision that is multiplied, where the
            core has an instruction for it (fp16 FMA; int8 dot product, or widening multiplies of bytes).
        software_prefetch: kernels of ours gain by asking for weights ahead, where somebody has measured that.
        strassen: and by Strassen's algorithm in large products; it takes 7/4 of the memory for their weights.
    """

    triple: str
    cpu: str
    features: tuple[str, ...]
    cores: Count
    clock_ghz: Annotated[float, Field(gt=0)]
    vector_bits: Count
    vector_registers: Count
    peak_flop_per_cycle: dict[Precision, Count]
    software_prefetch: bool = False
    strassen: bool = False

    @property
    def machine(self) -> str:
        """The architecture, as ``platform.machine()`` says it on Linux."""
        return self.triple.split("-")[0].replace("arm64", "aarch64")


class Caches(_Record):
    """Data caches the core sees, in KiB; ``line_bytes`` is one line. What is not published is left out.

    Attributes:
        l1d_ways, l2_ways: associativity; the emulated core's cache model needs it.
    """

    l1d_kib: Count
    l1d_ways: Count | None = None
    l2_kib: Count
    l2_ways: Count | None = None
    l3_kib: Count | None = None
    line_bytes: Count


class Emulated(_Record):
    """The core as QEMU's user-mode emulation has it, and as LLVM models it.

    Attributes:
        cpu: QEMU's name for the core.
        midr: the core's main ID register, as the device has it: runtimes choose their kernels by it.
        cpuinfo: the features that Linux lists on the device.
        scheduling_model: LLVM's name of the pipeline model that modelled cycles come from.
    """

    cpu: str
    midr: Annotated[int, Field(gt=0, lt=2**32)]
    cpuinfo: str
    scheduling_model: str


class Gpu(_Record):
    """The graphics processor and the interfaces that reach it."""

    name: str
    apis: tuple[Literal["Metal", "Vulkan", "OpenCL"], ...]


class Linker(_Record):
    """The program that makes a shared library for the target, the Debian package that has it, and its options."""

    program: str
    package: str
    options: tuple[str, ...] = ()


class Tvm(_Record):
    """TVM's target, as TVM takes it, and the linker."""

    target: dict[str, str | int | tuple[str, ...]]
    linker: Linker


class CoreMl(_Record):
    """What Core ML programs are converted for."""

    minimum_deployment_target: str


class Gate(_Record):
    """What an artifact of one precision must reach; a threshold left out is not asked for.

    Attributes:
        sqnr_db: signal-to-quantisation-noise ratio against the float64 network, of the worst sample and output.
        sqnr_db_with_attention: the same for a network that weighs values by a softmax, which int8 costs more.
        max_rel: largest error, relative to the output's largest magnitude.
        rms_vs_eager: RMS error, in multiples of eager PyTorch's own in float32.
        top1: share of the samples whose largest output is the float64 network's; a tie that ``max_rel`` could swap
            counts as agreement.
        largest_activation: a network whose values grow beyond it is worth a word in the report, though it passes.
        lowering_margin_db: where there is a quantisation simulation, the artifact's SQNR against it may be this much
            below the simulation's own against the network. Kernels that round differently from the simulation make an
            error of quantisation's size; a larger one is the conversion's.
        operators_within_one_quantum: where the backend compares each operator with its reference on the same inputs,
            this share of the worst operator's outputs is within one quantum.
        identical_to_host: share of the output elements with the same bits as on the host, where the device multiplied
            integers and no operator computes in float: what differs there is a fault, not rounding.
        largest_weight_error_quanta: where the backend compares int8 weights with the float ones, none is further off.
    """

    sqnr_db: float
    sqnr_db_with_attention: float | None = None
    max_rel: float | None = None
    rms_vs_eager: float | None = None
    top1: float | None = None
    largest_activation: float | None = None
    lowering_margin_db: float | None = None
    identical_to_host: float | None = None
    operators_within_one_quantum: float | None = None
    largest_weight_error_quanta: float | None = None


class Target(_Record):
    """One device.

    Attributes:
        name: on the command line; the name of the file.
        title: for people.
        device: what it is.
        baseline: code compiled for it runs on every host of its architecture that this project supports.
        formats: families emitted when none are asked for, the most used first.
        precisions: those emitted when none are asked for.
        checked_on: devices beside the host that artifacts are checked on, see ``edge.devices``.
        emulated: how to emulate the core; None where there is no emulation of it.
        gates: one for every precision there is.
    """

    name: str
    title: str
    device: str
    baseline: bool = False
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]
    checked_on: tuple[Literal["emulated", "software-gpu", "software-opencl"], ...] = ()
    core: Core
    caches: Caches
    emulated: Emulated | None = None
    gpu: Gpu | None = None
    tvm: Tvm | None = None
    coreml: CoreMl | None = None
    gates: dict[str, Gate]

    def for_attention(self) -> Target:
        """The same device with the gates that a network with attention is held to."""
        gates = {
            precision: gate.model_copy(update={"sqnr_db": gate.sqnr_db_with_attention})
            if gate.sqnr_db_with_attention is not None
            else gate
            for precision, gate in self.gates.items()
        }
        return self.model_copy(update={"gates": gates})

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(f"formats: there is no format named {name!r}")
            section = FORMATS[name].target_section
            if section and getattr(self, section) is None:
                raise ValueError(f"formats: {name} needs the table [{section}]")
        for device, table in (("emulated", "emulated"), ("software-gpu", "gpu"), ("software-opencl", "gpu")):
            if device in self.checked_on and getattr(self, table) is None:
                raise ValueError(f"checked_on: {device} needs the table [{table}]")
        if set(self.gates) != set(PRECISIONS):
            raise ValueError(f"gates: one is needed for each of {', '.join(PRECISIONS)}, and no other")
        return self


def names() -> tuple[str, ...]:
    """Every target there is, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none; the message has the nearest names.
        InputError: its file is not TOML, or a field of it is missing, unknown or impossible.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`edge targets` lists them"
        raise UsageError(f"there is no target named {name!r}", stage="define", target=name, next_step=hint)
    return read(FOLDER / f"{name}.toml")


def read(path: Path) -> Target:
    """The target that a file describes.

    Raises:
        InputError: see ``load``.
    """
    try:
        target = Target.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        problem, field = f"not TOML: {error}", "the file"
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()]
        problem = "; ".join(f"{where}: {what}" if where else what for where, what in faults)
        field = ", ".join(where for where, _ in faults if where) or "the fields named"
    else:
        if target.name == path.stem:
            return target
        problem, field = f"name: it is {target.name!r}, the file's is {path.stem!r}", "name"
    raise InputError(
        f"{path.name}: {problem}", stage="define", target=path.stem, next_step=f"correct {field} in {path}"
    )


def baseline(machine: str) -> Target:
    """The target whose code runs on every host of an architecture, given as ``platform.machine()`` says it.

    Raises:
        UsageError: no target is the baseline of that architecture.
    """
    for name in names():
        target = load(name)
        if target.baseline and target.core.machine == machine:
            return target
    raise UsageError(
        f"no target describes hosts of the architecture {machine}",
        stage="define",
        next_step="run on an x86-64 or aarch64 host, or add a target with baseline = true",
    )
