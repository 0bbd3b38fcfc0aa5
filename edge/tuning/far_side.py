"""How the tuner's processes with TVM in them begin and end: ``python -m edge.tuning.… JOB.json EVENTS.jsonl``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.worker import Events, end_with_parent


def main(run: Callable[[dict[str, Any], Events], None]) -> None:
    """Run the job that the arguments name; an error of ours is the last event, "ended", with its reason."""
    end_with_parent()
    job, events = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Events(Path(sys.argv[2]))
    try:
        run(job, events)
    except EdgeError as error:
        events.report(event="ended", reason=error.message)
