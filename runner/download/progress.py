"""Show the progress of a transfer: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from runner import console

if TYPE_CHECKING:
    from collections.abc import Iterator

Report = Callable[[int], None]
"""Called with the number of bytes received so far."""

SECONDS_BETWEEN_LINES: Final = 5.0


@contextlib.contextmanager
def byte_progress(title: str, total_bytes: int | None) -> Iterator[Report]:
    """Show a byte count; yield a function that is called with the number of bytes received so far."""
    if console.draws_on_terminal():
        with _bar(total_bytes) as report:
            yield report
    else:
        yield _plain_lines(title, total_bytes)


def megabytes(size_bytes: int) -> str:
    """Format a size in MB, or in bytes if it is small."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes} bytes"


def _plain_lines(title: str, total_bytes: int | None) -> Report:
    last_line = time.monotonic()

    def report(done_bytes: int) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            of_total = f" of {megabytes(total_bytes)}" if total_bytes is not None else ""
            console.note(f"   {title}: {megabytes(done_bytes)}{of_total}")

    return report


@contextlib.contextmanager
def _bar(total_bytes: int | None) -> Iterator[Report]:
    from rich import console as rich_console
    from rich import progress

    columns = (
        *("  ", progress.BarColumn(), progress.DownloadColumn()),
        *(progress.TransferSpeedColumn(), progress.TimeRemainingColumn()),
    )
    stderr = rich_console.Console(stderr=True)
    with progress.Progress(*columns, console=stderr, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=total_bytes)
        yield lambda done_bytes: bar.update(task, completed=done_bytes)
