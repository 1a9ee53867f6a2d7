"""Do the same for several variants at the same time, in one session."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Final, TypeVar

from runner import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.engines.base import Session

_Result = TypeVar("_Result")

PEAK_MIB: Final = 1024
"""What one variant needs at most at a time, rounded up; ``bench/RESULTS.md`` has the measured numbers."""


def at_once(cores: int, memory_mib: int) -> int:
    """Say how many variants to run at the same time: one per core, as long as the memory holds them.

    An export keeps one core busy from its beginning to its end, so more of them gain nothing.
    """
    return max(1, min(cores, memory_mib // PEAK_MIB))


def machine_memory_mib() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def run_together(
    session: Session, work: Callable[[str], _Result], names: Iterable[str], *, memory_mib: int
) -> tuple[_Result, ...]:
    """Run ``work`` for each name and return the results in that order.

    As many run at the same time as this machine can, within the memory that the session's jobs have together.
    One that fails does not end the others. An interrupt does: their jobs are killed.

    Raises:
        EngineError: the session did not come up.
        RunnerError: what one failed with; of several, the first in the order of the names.
    """
    names = tuple(names)
    workers = at_once(os.cpu_count() or 1, min(memory_mib, machine_memory_mib()))

    def work_on(name: str) -> _Result:
        try:
            return work(name)
        finally:
            console.end_line(name)

    with console.line_for_each(names):
        session.wait_until_ready()
        with ThreadPoolExecutor(max_workers=workers) as executor:
            futures = [executor.submit(work_on, name) for name in names]
            try:
                for future in as_completed(futures):
                    future.exception()
            except BaseException:
                session.stop()  # else the executor would wait for its jobs
                raise
    failed = [(name, it.exception()) for name, it in zip(names, futures, strict=True) if it.exception()]
    for name, problem in failed[1:]:
        console.warn(f"{name} failed as well: {problem}")
    return tuple(future.result() for future in futures)
