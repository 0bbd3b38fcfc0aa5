"""From a runner's name on the command line to the runner."""

from __future__ import annotations

from collections.abc import Callable

from edge.errors import UsageError
from edge.targets import Target
from edge.tuning.boards import Boards
from edge.tuning.runners import Emulated, Host, Runner


def find(name: str, target: Target, jobs: int) -> Runner:
    """The runner of a name on the command line: ``emulated``, ``host``, ``rpc://host:port/key``.

    Raises:
        UsageError: there is none of that name, or it cannot measure for the target.
        SetupError: a tool cannot be had.
    """
    if name.startswith("rpc:"):
        return Boards(name, target)
    makers: dict[str, Callable[[], Runner]] = {
        "emulated": lambda: Emulated(target, jobs),
        "host": lambda: Host(target),
    }
    if name not in makers:
        raise UsageError(
            f"there is no runner {name!r}",
            stage="tune",
            target=target.name,
            next_step=f"take {', '.join(makers)} or rpc://host:port/key",
        )
    return makers[name]()
