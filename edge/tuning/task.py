"""What is tuned: the problems of a network's kernels, each with its template and how often the network computes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edge.kernels.core import Core
from edge.kernels.registry import template as template_named
from edge.kernels.template import Choice, Problem, Template


@dataclass(frozen=True)
class Task:
    """One problem and the space of its choices.

    Attributes:
        template: its name.
        problem: what is computed.
        core: that it is computed on.
    """

    template: str
    problem: Problem
    core: Core

    @classmethod
    def from_json(cls, data: dict[str, Any], core: Core) -> Task:
        """The task that ``to_json`` wrote."""
        problems = template_named(data["template"]).problems
        return cls(data["template"], problems.from_json(data["problem"]), core)

    def to_json(self) -> dict[str, Any]:
        """Template and problem as plain data."""
        return {"template": self.template, "problem": self.problem.to_json()}

    @property
    def key(self) -> str:
        """In words; equal keys, equal tasks."""
        return self.problem.key

    @cached_property
    def space(self) -> tuple[Choice, ...]:
        """Every choice there is."""
        return self.template_of.space(self.problem, self.core)

    @property
    def default(self) -> int:
        """The index of the choice by rule."""
        return self.space.index(self.template_of.default(self.problem, self.core))

    @property
    def template_of(self) -> Template[Any, Any]:
        """The template itself."""
        return template_named(self.template)
