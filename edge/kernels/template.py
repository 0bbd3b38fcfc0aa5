"""The contract of a kernel template: from a problem and a choice to a scheduled kernel, as pure functions.

A *problem* is what is to be computed: shapes, strides, epilogue. A *choice* is how: the register tile, what is
unrolled, the order of the loops. The network decides the problem, a search or an analytic rule the choice, and the
core's vector unit which choices there are:

    problem ── space(problem, core) ──> choices ── kernel(problem, choice, core) ──> a function of TIR
                                           └────── pack(problem, choice, weights) ─> its constants

Activations are NHWC float32 with a batch of one. A kernel's arguments are the activations, the packed constants and
the result, in this order. No kernel asks that the network's own tensors be padded; packed constants may be.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

if TYPE_CHECKING:
    from tvm import tirx

    from edge.kernels.core import Core

FLOAT32_BYTES = 4
STACK_BYTES = 1024
"""TVM keeps a tile on the stack, from where LLVM takes it into registers, if it is smaller than this and of the scope
"global". Any other is a workspace, which each tile allocates and frees."""

WEIGHTS = "weights"
"""The name of a kernel's argument that has the bulk of its weights."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Values:
    """A frozen dataclass of plain values (numbers, strings, booleans, tuples of them) that goes to JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name; tuples become lists."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_json``.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


@dataclass(frozen=True)
class Problem(Values, ABC):
    """What a kernel computes."""

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-adds that the operator needs; padding that a kernel adds is not among them."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """The least traffic with memory: each input, weight and output once, in float32."""

    @property
    @abstractmethod
    def key(self) -> str:
        """The problem in words, for people and as the name in records: equal keys, equal problems."""


@dataclass(frozen=True)
class Choice(Values):
    """How a kernel computes it: small named values."""


P = TypeVar("P", bound=Problem)
C = TypeVar("C", bound=Choice)


class Template(ABC, Generic[P, C]):
    """One operator and the ways of computing it.

    Attributes:
        name: in records and reports.
        problems: the class of its problems.
        choices: the class of its choices.
    """

    name: ClassVar[str]
    problems: type[P]
    choices: type[C]

    @abstractmethod
    def space(self, problem: P, core: Core) -> tuple[C, ...]:
        """Every sensible choice, in a fixed order; never empty, and none needs more registers than the core has."""

    @abstractmethod
    def default(self, problem: P, core: Core) -> C:
        """The choice by an analytic rule, for problems that nobody measured; a member of ``space``."""

    @abstractmethod
    def kernel(self, problem: P, choice: C, core: Core) -> tirx.PrimFunc:
        """The scheduled kernel: ``tirx.is_scheduled`` and ``tirx.noalias`` set, its outermost loop parallel."""

    @abstractmethod
    def pack(self, problem: P, choice: C, *weights: Array) -> tuple[Array, ...]:
        """The kernel's constants, float32 and contiguous, from the weights in the template's plain layout."""

    @abstractmethod
    def reference(self, problem: P, *arrays: Array) -> Array:
        """The operator's plain formula, in the arrays' own precision: activations first, then the plain weights."""
