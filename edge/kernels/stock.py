"""Kernels that no template makes: the plain schedule, or one that TVM's MetaSchedule draws by its stock rules.

The problem is the kernel as TVM fused it, so the space has no names of its own: choice 0 is the plain schedule, which
is the default, and the others are draws from the stock rules for CPUs. The same TVM draws the same.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import tvm
from tvm import tirx

from edge.fingerprint import text_digest
from edge.kernels import plain
from edge.kernels.core import Core
from edge.kernels.meta_schedule import ms
from edge.kernels.template import FLOAT32_BYTES, Array, Choice, Problem, Template

DRAWS = 23
"""With the plain schedule, as many choices as the tuner measures of one kernel by default."""
SEED, BATCH, ROUNDS = 1, 16, 8
RULES = "llvm"
PLAIN = 0
NUMBER = re.compile(r"_?\d+(?=_|$)")
"""What TVM adds to an operator's name to tell it from others in the network."""


@dataclass(frozen=True)
class StockProblem(Problem):
    """A kernel.

    Attributes:
        name: of its operators, as TVM fused them.
        function: without a schedule; as TVM writes it, compressed.
    """

    name: str
    function: str

    @classmethod
    def of(cls, name: str, function: tirx.PrimFunc) -> StockProblem:
        """The problem that a kernel is, whatever numbers its name and its inputs' names have in its network."""
        bare = function.without_attr("global_symbol") if "global_symbol" in (function.attrs or {}) else function
        text = zlib.compress(_inputs_by_place(bare).encode(), 9)
        return cls(NUMBER.sub("", name), base64.b85encode(text).decode())

    @property
    def unscheduled(self) -> tirx.PrimFunc:
        """The kernel."""
        return tvm.ir.load_json(zlib.decompress(base64.b85decode(self.function)).decode())

    @property
    def macs(self) -> int:
        """Not known."""
        return 0

    @property
    def bytes(self) -> int:
        """Every argument once."""
        return FLOAT32_BYTES * sum(prod(map(int, parameter.shape)) for parameter in self.unscheduled.params)

    @property
    def key(self) -> str:
        """Such as "max_pool2d 1x112x112x64 1x56x56x64 (5a2c81)"."""
        shapes = ("x".join(str(int(n)) for n in parameter.shape) for parameter in self.unscheduled.params)
        return f"{self.name} {' '.join(shapes)} ({text_digest([self.function])[:6]})"


@dataclass(frozen=True)
class Stock(Choice):
    """Which schedule: 0 is the plain one, n the n-th draw."""

    draw: int


class StockTemplate(Template[StockProblem, Stock]):
    """See the module. The kernel's arguments are those of the function; all its weights are among them."""

    name = "stock"
    problems = StockProblem
    choices = Stock

    def space(self, problem: StockProblem, core: Core) -> tuple[Stock, ...]:
        """The plain schedule and the draws."""
        return tuple(Stock(draw) for draw in range(len(_draws(problem.function)) + 1))

    def default(self, problem: StockProblem, core: Core) -> Stock:
        """The plain schedule."""
        return Stock(PLAIN)

    def kernel(self, problem: StockProblem, choice: Stock, core: Core) -> tirx.PrimFunc:
        """The function, scheduled."""
        return scheduled(problem, choice, core)[0]

    def pack(self, problem: StockProblem, choice: Stock, *weights: Array) -> tuple[Array, ...]:
        """Nothing is packed."""
        return weights

    def reference(self, problem: StockProblem, *arrays: Array) -> Array:
        """What the function computes without a schedule, in float32."""
        function = problem.unscheduled
        run = tvm.compile(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target="llvm")["main"]
        result = tvm.runtime.empty(tuple(map(int, function.params[-1].shape)), "float32")
        run(*(tvm.runtime.tensor(np.ascontiguousarray(array, np.float32)) for array in arrays), result)
        return np.asarray(result.numpy())


def _inputs_by_place(function: tirx.PrimFunc) -> str:
    """A function as TVM writes it, its inputs named by their places."""
    written = json.loads(tvm.ir.save_json(function))
    places = {parameter.name: f"input{place}" for place, parameter in enumerate(function.params[:-1])}
    for node in written["nodes"]:
        if node["type"] == "ffi.String":
            node["data"] = places.get(node["data"], node["data"])
    return json.dumps(written, separators=(",", ":"))


def scheduled(problem: StockProblem, choice: Stock, core: Core) -> tuple[tirx.PrimFunc, str]:
    """Schedule a kernel.

    Returns:
        The kernel, and how it was scheduled: "by stock rules", or as ``plain.schedule`` says.
    """
    if choice.draw == PLAIN:
        return plain.schedule(problem.unscheduled, plain.Vectors(core.lanes, core.registers))
    drawn = tvm.ir.load_json(_draws(problem.function)[choice.draw - 1])["main"]
    return drawn.with_attr("tirx.is_scheduled", True), "by stock rules"


@lru_cache(maxsize=64)
def _draws(function: str) -> tuple[str, ...]:
    """Different schedules of a function, each a module as TVM writes it."""
    module = tvm.IRModule({"main": StockProblem("", function).unscheduled})
    found: dict[str, None] = {}
    for drawn in _drawn(module):
        found[tvm.ir.save_json(drawn)] = None
        if len(found) == DRAWS:
            break
    return tuple(found)


def _drawn(module: tvm.IRModule) -> Iterator[tvm.IRModule]:
    strategy = ms.search_strategy.ReplayTrace()
    context = ms.TuneContext(
        mod=module,
        target=tvm.target.Target({"kind": "llvm", "num-cores": 1}),
        space_generator=ms.space_generator.PostOrderApply(sch_rules=RULES, postprocs=RULES, mutator_probs=RULES),
        search_strategy=strategy,
        rand_state=SEED,
        num_threads=1,
    )
    nothing = (ms.database.MemoryDatabase(), ms.cost_model.RandomModel())
    strategy.pre_tuning(BATCH * ROUNDS, BATCH, context.generate_design_space(), *nothing)
    while candidates := strategy.generate_measure_candidates():
        yield from (candidate.sch.mod for candidate in candidates)
        strategy.notify_runner_results(candidates, [ms.runner.RunnerResult([1.0], None) for _ in candidates])
    strategy.post_tuning()
