"""Show the progress of a batch: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from runner import console
from runner.batch.outcome import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.batch.outcome import Outcome

    Report = Callable[[Outcome], None]
    """Called with the outcome of each job as it ends."""

SECONDS_BETWEEN_LINES: Final = 30.0


@contextlib.contextmanager
def job_progress(total: int) -> Iterator[Report]:
    """Yield a function to report outcomes; failures are printed at once."""
    with contextlib.ExitStack() as stack:
        drawn = stack.enter_context(_bar(total)) if console.draws_on_terminal() else _lines(total)
        tally = _Tally(total)

        def report(outcome: Outcome) -> None:
            tally.add(outcome)
            if outcome.state is State.FAILED:
                console.note(f"failed: {outcome.name}: {outcome.reason}")
            drawn(tally)

        yield report


class _Tally:
    """The progress of a batch. Results that existed already do not count for the rate."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.failed = self.kept = 0
        self._started_s = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        self.failed += outcome.state is State.FAILED
        self.kept += outcome.state is State.KEPT

    @property
    def text(self) -> str:
        """For example ``3 of 64 jobs, 12.0 a minute, 5 min left``."""
        text = f"{self.done} of {self.total} jobs"
        if self.failed:
            text += f", {self.failed} failed"
        ran, elapsed_s = self.done - self.kept, time.monotonic() - self._started_s
        if ran and self.done < self.total:
            left_s = (self.total - self.done) * elapsed_s / ran
            left = f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min"
            text += f", {60 * ran / elapsed_s:.1f} a minute, {left} left"
        return text


def _lines(total: int) -> Callable[[_Tally], None]:
    last_line = time.monotonic()

    def draw(tally: _Tally) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES or tally.done == total:
            last_line = time.monotonic()
            console.note(f"   {tally.text}")

    return draw


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[_Tally], None]]:
    from rich import console as rich_console
    from rich import progress

    columns = ("  ", progress.BarColumn(), "{task.description}")
    stderr = rich_console.Console(stderr=True)
    with progress.Progress(*columns, console=stderr, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(f"0 of {total} jobs", total=total)
        yield lambda tally: bar.update(task, completed=tally.done, description=tally.text)
