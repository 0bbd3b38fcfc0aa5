"""The far side of the boards' runner: ``python -m edge.tuning.remote``, times one kernel on one board.

The tracker gives whichever board is free, and forgets a board whose server is gone. Each request has a session of its
own, so a board that dies takes one measurement with it.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from edge.tuning.compiled import SYMBOL
from edge.tuning.workers import serve

WAIT_S = 20
"""What a session may last: the board ends it then, and is free again."""
REPEATS = 5
REPEAT_MS = 20


def answer(request: dict[str, Any]) -> float | int:
    """How many boards wait at a tracker; or, where the request has a kernel, seconds of one call of it on one of them.

    Args:
        request: the tracker's "host" and "port" and the boards' "key"; and the kernel's library ("file") and the shapes
            of its arguments ("shapes").
    """
    import tvm
    from tvm import rpc

    place = request["tracker"]
    tracker = rpc.connect_tracker(place["host"], place["port"])
    if "file" not in request:
        return sum(server["key"] == f"server:{place['key']}" for server in tracker.summary()["server_info"])
    session = tracker.request(place["key"], session_timeout=WAIT_S, max_retry=1)
    file = Path(request["file"])
    session.upload(str(file))
    device = session.cpu()
    random = np.random.default_rng(0)
    tensors = [tvm.runtime.tensor(random.random(shape, np.float32) - 0.5, device) for shape in request["shapes"]]
    module = session.load_module(file.name)
    evaluator = module.time_evaluator(SYMBOL, device, repeat=REPEATS, min_repeat_ms=REPEAT_MS)
    evaluator(*tensors)  # warms caches and clock
    return statistics.median(evaluator(*tensors).results)


if __name__ == "__main__":
    serve(answer)
