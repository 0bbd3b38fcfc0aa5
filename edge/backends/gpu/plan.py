"""The launch plan: every launch of one inference, and where in the device's memory each tensor lies.

The network is a straight line of calls, so memory is planned by one walk over it: a tensor takes the smallest free
buffer that it fits into, or grows the largest, or gets a new one, and gives it back after its last reader.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edge.backends.gpu.interfaces import Interface
from edge.backends.gpu.launches import Function, Launch
from edge.backends.gpu.program import Program, Tensor
from edge.records import Port

WEIGHTS = "weights.bin"
Ports = tuple[Port, ...]
VERSION = 1
"""Raised when a host that reads the older plan would misread the newer."""
ALIGNMENT = 128
"""Of each constant in the weights; OpenCL asks for no more of any type."""


@dataclass
class Buffer:
    """Memory on the device; constants have an offset in the weights."""

    bytes: int
    offset: int | None = None


@dataclass
class Plan:
    """Everything the host needs beside the source.

    Attributes:
        inputs: port and buffer, in order.
        outputs: the same.
        launches: their arguments are places in the list of buffers.
        weights: all constants.
    """

    buffers: list[Buffer] = field(default_factory=list)
    inputs: list[tuple[Port, int]] = field(default_factory=list)
    outputs: list[tuple[Port, int]] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)

    @property
    def activation_bytes(self) -> int:
        """Memory for tensors and scratch: all that is no constant."""
        return sum(buffer.bytes for buffer in self.buffers if buffer.offset is None)


def make(program: Program, functions: Sequence[Function], inputs: Ports, outputs: Ports) -> Plan:
    """Plan the launches and the memory of a network.

    Args:
        program: the calls.
        functions: what each call launches, in the same order.
        inputs: ports of the program's inputs.
        outputs: ports of its outputs.
    """
    plan, memory = Plan(), _Memory()
    plan.buffers = memory.buffers
    places = {id(tensor): memory.take(tensor.bytes) for tensor in program.inputs}
    places |= {id(tensor): memory.constant(tensor, plan.weights) for tensor in program.constants}
    last = {id(tensor): call for call in program.calls for tensor in (*call.reads, *call.writes)}
    kept = {id(tensor) for tensor in (*program.inputs, *program.constants, *program.outputs)}
    for call, function in zip(program.calls, functions, strict=True):
        places |= {id(tensor): memory.take(tensor.bytes) for tensor in call.writes}
        scratch = [memory.take(size) for size in function.scratch]
        tensors = [id(tensor) for tensor in (*call.reads, *call.writes)]
        buffers = [*(places[tensor] for tensor in tensors), *scratch]
        for launch in function.launches:
            plan.launches.append(replace(launch, arguments=tuple(buffers[place] for place in launch.arguments)))
        done = {places[tensor] for tensor in tensors if last[tensor] is call and tensor not in kept}
        for buffer in (*done, *scratch):
            memory.give_back(buffer)
    plan.inputs = [(port, places[id(tensor)]) for port, tensor in zip(inputs, program.inputs, strict=True)]
    plan.outputs = [(port, places[id(tensor)]) for port, tensor in zip(outputs, program.outputs, strict=True)]
    return plan


def members(plan: Plan, interface: Interface, source: str) -> dict[str, bytes]:
    """What an artifact holds, by name and in order."""
    return {
        "plan.json": _to_json(plan, interface).encode(),
        interface.source: (interface.preamble + source).encode(),
        WEIGHTS: bytes(plan.weights),
    }


def _to_json(plan: Plan, interface: Interface) -> str:
    """The plan as text, one buffer, port or launch a line."""
    head = {"version": VERSION, "api": interface.name, "source": interface.source, "weights": WEIGHTS}
    lists: dict[str, list[dict[str, Any]]] = {
        "buffers": [
            {"bytes": buffer.bytes} | ({} if buffer.offset is None else {"offset": buffer.offset})
            for buffer in plan.buffers
        ],
        "inputs": [_port(port, buffer) for port, buffer in plan.inputs],
        "outputs": [_port(port, buffer) for port, buffer in plan.outputs],
        "launches": [
            {
                "kernel": launch.kernel,
                "arguments": launch.arguments,
                "global": [groups * local for groups, local in zip(launch.groups, launch.local, strict=True)],
                "local": launch.local,
            }
            for launch in plan.launches
        ],
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, entries in lists.items():
        lines.append(f"{json.dumps(key)}: [\n  " + ",\n  ".join(map(json.dumps, entries)) + "\n ]")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _port(port: Port, buffer: int) -> dict[str, Any]:
    return {"name": port.tensor, "buffer": buffer, "shape": port.shape}


class _Memory:
    """The device's buffers, and which of them are free."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._free: set[int] = set()
        self._constants: dict[bytes, int] = {}

    def take(self, size: int) -> int:
        """A buffer for so many bytes."""
        fitting = [buffer for buffer in self._free if self.buffers[buffer].bytes >= size]
        if fitting:
            chosen = min(fitting, key=lambda buffer: (self.buffers[buffer].bytes, buffer))
        elif self._free:
            chosen = max(self._free, key=lambda buffer: (self.buffers[buffer].bytes, buffer))
            self.buffers[chosen].bytes = size
        else:
            self.buffers.append(Buffer(size))
            return len(self.buffers) - 1
        self._free.remove(chosen)
        return chosen

    def give_back(self, buffer: int) -> None:
        """Nobody reads it any more."""
        self._free.add(buffer)

    def constant(self, tensor: Tensor, weights: bytearray) -> int:
        """A buffer that is filled from the weights; equal constants share one."""
        assert tensor.content is not None
        content = tensor.content.astype(tensor.stored).tobytes()
        if content not in self._constants:
            weights.extend(bytes(-len(weights) % ALIGNMENT))
            self._constants[content] = len(self.buffers)
            self.buffers.append(Buffer(len(content), len(weights)))
            weights.extend(content)
        return self._constants[content]
