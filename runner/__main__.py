"""Start the command line, or exit with a hint if the dependencies are not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _is_set_up() -> bool:
    # Do not look for the package docker: if it is missing, Python finds this repository's folder docker/.
    return all(importlib.util.find_spec(name) for name in ("typer", "filelock", "httpx", "tomli"))


if not _is_set_up():
    root = Path(__file__).resolve().parent.parent
    way = f"make -C {root} venv, then {root}/.venv/bin/python -m runner"
    if not (root / "Makefile").is_file():
        way = "reinstall mobiledet-runner with its dependencies"
    sys.exit(f"error: the runner's dependencies are not installed for this Python.\n  try: {way}")

from runner.cli import main  # noqa: E402 - its dependencies are checked first

main()
