"""Show the progress of a batch, and print failures immediately."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from runner import console
from runner.batch.outcome import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.batch.outcome import Outcome

    Report = Callable[[Outcome], None]
    """Called with the outcome of each job as it ends."""


@contextlib.contextmanager
def job_progress(total: int) -> Iterator[Report]:
    """Show the progress of ``total`` jobs; yield the function to call with each outcome."""
    with console.counting(total, "jobs") as tally:

        def report(outcome: Outcome) -> None:
            is_failed = outcome.state is State.FAILED
            if is_failed:
                console.note(f"failed: {outcome.name}: {outcome.reason}")
            tally.add(is_failed=is_failed, is_kept=outcome.state is State.KEPT)

        yield report
