"""Start the command line, or say what is missing to start it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _is_set_up() -> bool:
    # Outside the environment `import docker` would find our folder docker/ and not fail; so ask for typer.
    return all(importlib.util.find_spec(name) for name in ("typer", "filelock", "httpx", "tomli"))


if not _is_set_up():
    root = Path(__file__).resolve().parent.parent
    sys.exit(
        "error: what the runner needs is not installed for this Python.\n"
        f"  try: make -C {root} venv, then {root}/.venv/bin/python -m runner"
    )

from runner.cli import main  # noqa: E402 - only now is it known to be there

main()
