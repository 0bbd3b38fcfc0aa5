"""Errors a person can act on: stage, model, target, what happened, what to do next. Exit codes are an interface."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the ``edge`` command returns to the shell."""

    OK = 0
    USAGE = 2
    """An unknown name or a combination that does not exist."""
    INPUT = 3
    """A checkpoint, an image folder or a network that cannot be used."""
    SETUP = 4
    """An environment or a tool that could not be had."""
    EXPORT = 5
    """At least one exporter failed, or a required check was skipped."""
    PARITY = 6
    """Everything was emitted, and at least one artifact missed its gate."""
    INTERRUPTED = 130


class EdgeError(Exception):
    """Ends the command with one message and its own exit code; never shown with a traceback.

    Args:
        message: what happened, in one sentence.
        stage: define, lower, emit, verify, report or setup.
        model: the network's name, if one is known.
        target: the target's name, if one is known.
        next_step: what the reader can do about it.
    """

    exit_code = ExitCode.EXPORT

    def __init__(
        self, message: str, *, stage: str, model: str | None = None, target: str | None = None, next_step: str
    ) -> None:
        self.message, self.stage, self.model, self.target, self.next_step = message, stage, model, target, next_step
        super().__init__(message)

    def __str__(self) -> str:
        where = " ".join(
            [self.stage, *([self.model] if self.model else []), *([f"for {self.target}"] if self.target else [])]
        )
        return f"{where}: {self.message}\nnext: {self.next_step}"


class UsageError(EdgeError):
    """An unknown name or a combination that does not exist."""

    exit_code = ExitCode.USAGE


class InputError(EdgeError):
    """A file of the user's that cannot be used: a checkpoint, an image, a network."""

    exit_code = ExitCode.INPUT


class SetupError(EdgeError):
    """An environment or a tool that could not be had."""

    exit_code = ExitCode.SETUP


class ExportError(EdgeError):
    """A stage of the pipeline itself failed."""

    exit_code = ExitCode.EXPORT
