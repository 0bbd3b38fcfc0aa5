"""Where set-up puts things: all inside the repository, so that removing ``.venv`` and ``.edge`` removes every trace."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BASE_ENVIRONMENT = REPOSITORY / ".venv"
PRIVATE = REPOSITORY / ".edge"
ENVIRONMENTS = PRIVATE / "environments"
TOOLS = PRIVATE / "tools"
CACHE = PRIVATE / "cache"
LOCKS = PRIVATE / "locks"
HOME = PRIVATE / "home"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
