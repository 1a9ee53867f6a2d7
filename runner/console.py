"""Report progress and warnings, and print results.

The command line prints progress and warnings to stderr (`print_messages`). In any other program that imports
this package, they are records of the logger ``runner``, so nothing is printed by default.

The output is plain text: it looks the same in a terminal, a CI log and a file, and needs no library. The
exception is the bottom of a terminal: Rich draws a status line there for each variant that runs in parallel,
and a bar for many jobs or images.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator

    from runner.errors import RunnerError


def print_messages() -> None:
    """From now on, print messages to stderr instead of logging them."""
    global _is_printing  # noqa: PLW0603 - there is one stderr
    _is_printing = True


def draws_on_terminal() -> bool:
    """Return whether progress may be drawn: messages are printed, and stderr is a terminal."""
    return _is_printing and sys.stderr.isatty()


def note(message: str) -> None:
    """Report progress."""
    sink = _sink.get()
    if sink is not None:
        sink(message)
        return
    if not _is_printing:
        _logger().info(message.strip())
        return
    if _lines is not None:
        _lines.print_above(message)
        return
    # One write per line, so that lines of different threads do not mix.
    print(f"{message}\n", end="", file=sys.stderr, flush=True)  # noqa: T201 - this is where printing happens


def warn(message: str) -> None:
    """Report a warning; the program continues."""
    if _is_printing or _sink.get() is not None:
        note(f"warning: {message}")
    else:
        _logger().warning(message)


@contextlib.contextmanager
def diverted(sink: Callable[[str], None]) -> Iterator[None]:
    """In this context, send the messages of this thread to ``sink`` instead of printing or logging them."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def error(problem: RunnerError) -> None:
    """Print the last log lines of an error, its message and its tip."""
    for line in problem.last_lines:
        note(f"  | {line}")
    note(f"error: {problem.message}")
    if problem.tip:
        note(f"  try: {problem.tip}")


def result(text: str) -> None:
    """Print a result to stdout; nothing else is printed there."""
    try:
        print(text, flush=True)  # noqa: T201 - this module is where printing happens
    except OSError:  # without this, Python flushes again at shutdown and exits with code 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def result_json(value: object, **more: object) -> None:
    """Print a result as a JSON object with the keys of ``value`` and ``more``."""
    entry = plain(value)
    if more:
        assert isinstance(entry, dict), value
        entry = {**{name: plain(item) for name, item in more.items()}, **entry}
    result(json.dumps(entry, indent=2, ensure_ascii=False))


def plain(value: object) -> object:
    """Convert a value to JSON types.

    Dataclass fields with ``repr=False`` are omitted. Infinities, NaN and everything else that has no JSON
    type, such as a path, become strings.
    """
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


@contextlib.contextmanager
def step(title: str, *, of: str = "") -> Iterator[None]:
    """Report the start of a step, and its duration when it ends or fails.

    ``of`` is a label for the log lines, usually the name of a variant.
    """
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
    """Return the prefix of a log line, such as ``[fp32] ``, or an empty string if there is no label."""
    return f"[{of}] " if of else ""


@functools.cache
def _logger() -> logging.Logger:
    """Return the logger of this package; unless a handler is configured, its records are discarded."""
    import logging

    logger = logging.getLogger("runner")
    logger.addHandler(logging.NullHandler())
    return logger


_is_printing = False
_sink: ContextVar[Callable[[str], None] | None] = ContextVar("sink", default=None)


# --- status lines of parallel work ------------------------------------------------------------------------


@contextlib.contextmanager
def line_for_each(names: Iterable[str]) -> Iterator[None]:
    """Show a status line for each name at the bottom of the terminal: the current step and its duration.

    If stderr is not a terminal, no status lines are drawn and the steps are printed as usual.
    """
    global _lines  # noqa: PLW0603 - there is one stderr, and everything printed goes above these lines
    lines = _Lines(names) if draws_on_terminal() else None
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
    """Remove the status line of a name that is finished."""
    if _lines is not None:
        _lines.end(name)


class _Lines:
    """Status lines, one per name; all other output is printed above them."""

    def __init__(self, names: Iterable[str]) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

        self.progress = Progress(
            *(SpinnerColumn(), "{task.fields[name]}", "{task.description}", TimeElapsedColumn()),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # results must stay on stdout
        )
        self._tasks = {name: self.progress.add_task("waiting", total=None, name=name) for name in names}

    @property
    def can_be_drawn(self) -> bool:
        """Whether this terminal can redraw lines."""
        return self.progress.console.is_interactive and not self.progress.console.is_dumb_terminal

    def print_above(self, text: str) -> None:
        # Not wrapped, so that a long command can be copied in one piece.
        self.progress.console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    def show(self, name: str, step: str) -> bool:
        if name not in self._tasks:
            return False
        self.progress.reset(self._tasks[name], description=step)
        return True

    def end(self, name: str) -> None:
        self.progress.update(self._tasks[name], visible=False)


_lines: _Lines | None = None
"""The status lines that are currently shown."""


# --- progress of many jobs or images --------------------------------------------------------------------

SECONDS_BETWEEN_LINES: Final = 30.0


@contextlib.contextmanager
def counting(total: int, unit: str) -> Iterator[Tally]:
    """Show how many of ``total`` items are done: a bar on a terminal, otherwise a line from time to time."""
    with contextlib.ExitStack() as stack:
        is_drawn = draws_on_terminal() and _sink.get() is None
        draw = stack.enter_context(_bar(total, unit)) if is_drawn else _lines_of_log()
        yield Tally(total, unit, draw)


class Tally:
    """Counts finished items and computes their rate and the remaining time.

    Kept items, whose results already existed, do not count for the rate.
    """

    def __init__(self, total: int, unit: str, draw: Callable[[Tally], None]) -> None:
        self.total, self.unit = total, unit
        self.done = self.failed = self.kept = 0
        self._draw = draw
        self._started_s = time.monotonic()

    def add(self, count: int = 1, *, is_failed: bool = False, is_kept: bool = False) -> None:
        """Count finished items; ``is_kept`` if their results already existed."""
        self.done += count
        self.failed += count * is_failed
        self.kept += count * is_kept
        self._draw(self)

    @property
    def text(self) -> str:
        """The progress as text, such as ``3 of 64 jobs, 12.0 a minute, 5 min left``."""
        text = f"{self.done} of {self.total} {self.unit}"
        if self.failed:
            text += f", {self.failed} failed"
        ran, elapsed_s = self.done - self.kept, time.monotonic() - self._started_s
        if ran and elapsed_s > 0 and self.done < self.total:
            left_s = (self.total - self.done) * elapsed_s / ran
            left = f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min"
            rate = ran / elapsed_s
            text += f", {rate:.1f} a second" if rate >= 1 else f", {60 * rate:.1f} a minute"
            text += f", {left} left"
        return text


def _lines_of_log() -> Callable[[Tally], None]:
    last_line = time.monotonic()

    def draw(tally: Tally) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES or tally.done == tally.total:
            last_line = time.monotonic()
            note(f"   {tally.text}")

    return draw


@contextlib.contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[Tally], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress

    columns = ("  ", BarColumn(), "{task.description}")
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(f"0 of {total} {unit}", total=total)
        yield lambda tally: bar.update(task, completed=tally.done, description=tally.text)
