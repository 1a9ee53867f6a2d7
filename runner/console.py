"""What the user reads while the program works: everything goes to stderr, results go to stdout.

Plain text on purpose: it reads the same in a terminal, a CI log and a file, and costs no import.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.errors import RunnerError


def note(message: str) -> None:
    """Say something worth knowing."""
    # In one piece: of two threads, none ends the other's line.
    print(f"{message}\n", end="", file=sys.stderr, flush=True)  # noqa: T201 - this is where printing happens


def warn(message: str) -> None:
    """Say something the user should look at; the program goes on."""
    note(f"warning: {message}")


def error(problem: RunnerError) -> None:
    """Say what failed and what to try."""
    for line in problem.last_lines:
        note(f"  | {line}")
    note(f"error: {problem.message}")
    if problem.tip:
        note(f"  try: {problem.tip}")


def result(text: str) -> None:
    """Print a result: the only thing that goes to stdout."""
    print(text, flush=True)  # noqa: T201 - this module is where printing happens


def result_json(value: object) -> None:
    """Print a result for a program to read."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and say how long it took, also when it fails."""
    note(f"-> {title}")
    started = time.monotonic()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        note(f"   {outcome}: {title} ({time.monotonic() - started:.1f} s)")
