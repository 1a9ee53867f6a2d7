"""What the user reads while the program works: everything goes to stderr, results go to stdout.

Plain text on purpose: it reads the same in a terminal, a CI log and a file, and costs no import. Only what is
worked on side by side has, in a terminal, a line of its own at the bottom, which Rich draws.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.errors import RunnerError


def note(message: str) -> None:
    """Say something worth knowing."""
    if _lines is not None:
        _lines.print_above(message)
        return
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
def step(title: str, *, of: str = "") -> Iterator[None]:
    """Announce a step and say how long it took, also when it fails; ``of`` is what it is done for."""
    if _lines is None or not _lines.show(of, title):
        note(f"-> {label(of)}{title}")
    started = time.monotonic()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        note(f"   {outcome}: {label(of)}{title} ({time.monotonic() - started:.1f} s)")


def label(of: str) -> str:
    """Return what stands in front of a line about something that is worked on beside others."""
    return f"[{of}] " if of else ""


# --- what is worked on side by side -----------------------------------------------------------------------


@contextlib.contextmanager
def line_for_each(names: Iterable[str]) -> Iterator[None]:
    """Keep a line for each name at the bottom of a terminal: the step it is at, and for how long.

    Where stderr is no terminal, the steps' own lines are all there is.
    """
    global _lines  # noqa: PLW0603 - there is one stderr, and all that is printed has to know of its lines
    lines = _Lines(names) if sys.stderr.isatty() else None
    if lines is None or not lines.can_be_drawn:
        yield
        return
    _lines = lines
    try:
        with _lines.progress:
            yield
    finally:
        _lines = None


def end_line(name: str) -> None:
    """Let the line of a name go: nothing more is done for it."""
    if _lines is not None:
        _lines.end(name)


class _Lines:
    """One line for each name; everything else is printed above them."""

    def __init__(self, names: Iterable[str]) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

        self.progress = Progress(
            *(SpinnerColumn(), "{task.fields[name]}", "{task.description}", TimeElapsedColumn()),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # results are not for stderr
        )
        self._tasks = {name: self.progress.add_task("waiting", total=None, name=name) for name in names}

    @property
    def can_be_drawn(self) -> bool:
        """Can this terminal have lines that change?"""
        return self.progress.console.is_interactive and not self.progress.console.is_dumb_terminal

    def print_above(self, text: str) -> None:
        # Not wrapped: a command that is too long for the line can still be copied whole.
        self.progress.console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    def show(self, name: str, step: str) -> bool:
        if name not in self._tasks:
            return False
        self.progress.reset(self._tasks[name], description=step)
        return True

    def end(self, name: str) -> None:
        self.progress.update(self._tasks[name], visible=False)


_lines: _Lines | None = None
"""Those that are there now."""
