"""What the user asked for, checked and spelled out: one unit for each precision of each format."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge.errors import UsageError
from edge.formats import FORMATS, PRECISIONS, Converter, Format
from edge.targets import Target

ALL = "all"


@dataclass(frozen=True)
class Unit:
    """One precision of one format: what is emitted, reported and reused as a whole.

    Attributes:
        obstacle: why the target cannot take it, empty if it can; such a unit is reported as skipped.
    """

    format: Format
    converter_name: str
    precision: str
    obstacle: str = ""

    @property
    def converter(self) -> Converter:
        """The backend and its environment."""
        return self.format.converters[self.converter_name]


@dataclass(frozen=True)
class Request:
    """One export, as the user asked for it.

    Attributes:
        model: a registered network's name, or a saved ``ExportedProgram`` (.pt2).
        formats: names from the table, "all" for every family, empty for the target's.
        precisions: empty for the target's.
        tflite_converter: "litert" or "onnx2tf", empty for the default.
        checkpoint: weights to load; None for seeded ones.
        calibration: folder with the user's images; None for the photographs that come with the packages.
        out: the folder that gets ``<target>/<model>/``.
        jobs: worker processes side by side.
        devices: where artifacts are checked, see ``edge.devices``; empty for the host and the target's.
        require: a skipped check fails the command.
    """

    model: str
    target: Target
    formats: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    tflite_converter: str = ""
    checkpoint: Path | None = None
    calibration: Path | None = None
    out: Path = Path("dist")
    jobs: int = 2
    require: bool = False
    devices: tuple[str, ...] = ()

    @property
    def checked_on(self) -> tuple[str, ...]:
        """Names of the devices that artifacts are checked on."""
        return tuple(dict.fromkeys(self.devices or ("host", *self.target.checked_on)))

    @property
    def name(self) -> str:
        """The network's name, which files are named after."""
        return Path(self.model).stem if self.is_program else self.model

    @property
    def is_program(self) -> bool:
        """Whether the model is the user's own exported program."""
        return self.model.endswith(".pt2")

    @property
    def folder(self) -> Path:
        """Where the artifacts go, absolute: workers have another working directory."""
        return self.out.absolute() / self.target.name / self.name

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What to make; see ``plan`` for the errors."""
        return plan(self.target, self.formats, self.precisions, self.tflite_converter)

    @property
    def command(self) -> str:
        """The command that makes the same again."""
        variables = {
            "TARGET": self.target.name,
            "MODEL": self.model,
            "CHECKPOINT": self.checkpoint,
            "CALIBRATION": self.calibration,
            "FORMATS": ",".join(self.formats),
            "PRECISIONS": ",".join(self.precisions),
            "TFLITE_CONVERTER": self.tflite_converter,
            "DEVICES": ",".join(self.devices),
        }
        return " ".join(["make export", *(f"{k}={shlex.quote(str(v))}" for k, v in variables.items() if v)])


def possible_units() -> tuple[Unit, ...]:
    """Every precision of every format through every converter."""
    return tuple(
        Unit(format, converter, precision)
        for format in FORMATS.values()
        for converter in format.converters
        for precision in format.precisions
    )


def _known(kind: str, name: str, table: Iterable[str], target: Target) -> None:
    names = list(table)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise UsageError(f"there is no {kind} named {name!r}", stage="define", target=target.name, next_step=hint)


def _obstacle(format: Format, target: Target) -> str:
    if format.target_section and getattr(target, format.target_section) is None:
        return f"the target's profile has no [{format.target_section}] table, so nothing can be built for it"
    return ""


def plan(
    target: Target, formats: tuple[str, ...] = (), precisions: tuple[str, ...] = (), tflite_converter: str = ""
) -> tuple[Unit, ...]:
    """The units of an export.

    Args:
        target: gives the formats and precisions when none are named.
        formats: names from the table, or "all" for every family.
        precisions: each format gives those of them that it has.
        tflite_converter: "litert" or "onnx2tf"; empty for the default.

    Raises:
        UsageError: an unknown name, a format the target cannot take, or a combination that does not exist.
    """
    everything = formats == (ALL,)
    chosen = tuple(FORMATS) if everything else formats or target.formats
    for format_name in chosen:
        _known("format", format_name, FORMATS, target)
    for precision in precisions:
        _known("precision", precision, PRECISIONS, target)
    if tflite_converter:
        _known("TFLite converter", tflite_converter, FORMATS["tflite"].converters, target)
    units = []
    for format in (FORMATS[name] for name in dict.fromkeys(chosen)):
        obstacle = _obstacle(format, target)
        if obstacle and not everything:
            raise UsageError(
                f"{format.name} cannot be made: {obstacle}",
                stage="define",
                target=target.name,
                next_step=f"`edge targets` shows what {target.name} takes",
            )
        offered = [p for p in precisions or target.precisions if p in format.precisions]
        if not offered and formats and not everything:
            raise UsageError(
                f"{format.name} is not made in {', '.join(precisions)}",
                stage="define",
                target=target.name,
                next_step=f"{format.name} comes in {', '.join(format.precisions)}; `edge formats` lists them all",
            )
        converter = tflite_converter if tflite_converter and format.name == "tflite" else next(iter(format.converters))
        units += [Unit(format, converter, precision, obstacle) for precision in offered]
    if not units:
        raise UsageError(
            f"none of {', '.join(chosen)} is made in {', '.join(precisions)}",
            stage="define",
            target=target.name,
            next_step="`edge formats` lists which format comes in which precision",
        )
    return tuple(units)
