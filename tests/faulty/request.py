"""A worker that stays, until a request asks it not to: the far side for tests of ``edge.tuning.workers``."""

import os
import signal
import time
from typing import Any

from edge.tuning.workers import serve


def answer(request: Any) -> Any:
    print("this is no answer")
    if request == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if request == "hang":
        time.sleep(600)
    if request == "raise":
        raise ValueError("of no use\nat all")
    return [os.getpid(), request]


if __name__ == "__main__":
    serve(answer)
