"""The far side of a compile worker: ``python -m edge.tuning.compiling``, one JSON object a line in and out.

A request names a kernel, by its template, problem and choice; the answer is what is known of it when it is compiled,
or the fault. Whatever else the tools print goes to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.kernels.core import Core
from edge.kernels.registry import template as template_named
from edge.targets import Target
from edge.tuning.compiled import compile_kernel
from edge.tuning.workers import serve


def compile_request(request: dict[str, Any]) -> dict[str, Any]:
    """Compile what a request asks for; see ``compile_kernel`` for what it raises."""
    target = Target.model_validate(request["target"])
    template = template_named(request["template"])
    problem = template.problems.from_json(request["problem"])
    function = template.kernel(problem, template.choices.from_json(request["choice"]), Core.of(target))
    return compile_kernel(function, target, Path(request["file"])).to_json()


if __name__ == "__main__":
    serve(compile_request)
