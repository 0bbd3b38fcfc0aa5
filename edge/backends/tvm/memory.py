"""The memory that a library needs for activations: TVM's own plan, watched while TVM compiles.

TVM plans which tensors share a storage, and when a storage is needed no more (``StaticPlanBlockMemory``,
``KillAfterLastUse``). A kernel may need some of its own beside them: an image within a border of zeros, and tiles on
the stack. The network's inputs are its caller's, and not counted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir.instrument import pass_instrument


@dataclass(frozen=True)
class Call:
    """One kernel of the program.

    Attributes:
        kernel: its name.
        storages: bytes of all storages that are in use while it runs.
    """

    kernel: str
    storages: int


@pass_instrument
class Plan:
    """An instrument for the pass context of one compilation; what it saw is complete after that.

    Attributes:
        calls: the kernels in the program's order.
        scratch: bytes of each kernel's own, by its name.
    """

    calls: tuple[Call, ...]
    scratch: dict[str, int]

    def __init__(self) -> None:
        self.calls, self.scratch = (), {}

    def run_after_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        """TVM calls this after every pass."""
        if info.name == "KillAfterLastUse":
            self.calls = calls(module["main"])
        elif info.name == "tirx.StorageRewrite":
            allocated = tvm.s_tir.analysis.calculate_allocated_bytes(module)
            self.scratch |= {str(name): sum(map(int, scopes.values())) for name, scopes in allocated.items()}

    @property
    def peak(self) -> int:
        """The most bytes in use at one time."""
        return max((call.storages + self.scratch[call.kernel] for call in self.calls), default=0)


def calls(function: relax.Function) -> tuple[Call, ...]:
    """The kernels that a planned function calls. A storage is in use until it is killed, and every tensor in it."""
    sizes: dict[relax.Var, int] = {}
    storage_of: dict[relax.Var, relax.Var] = {}
    tensors: dict[relax.Var, set[relax.Var]] = defaultdict(set)
    killed: set[relax.Var] = set()
    found: list[Call] = []
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        made, value = binding.var, binding.value
        if not isinstance(value, relax.Call):
            continue
        if isinstance(value.op, tvm.ir.GlobalVar):
            used = (size for storage, size in sizes.items() if storage not in killed or tensors[storage])
            found.append(Call(value.op.name_hint, sum(used)))
            continue
        name, operand = getattr(value.op, "name", ""), value.args[0] if value.args else None
        if name == "relax.memory.alloc_storage":
            sizes[made] = int(value.args[0].values[0])
        elif name == "relax.memory.alloc_tensor":
            storage_of[made] = operand
        elif name == "relax.reshape" and operand in storage_of:
            storage_of[made] = storage_of[operand]
        elif name == "relax.memory.kill_storage":
            killed.add(operand)
        elif name == "relax.memory.kill_tensor" and operand in storage_of:
            tensors[storage_of[operand]].discard(operand)
        if made in storage_of:
            tensors[storage_of[made]].add(made)
    return tuple(found)
