"""Run the same work for several variants in parallel, in one session."""

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
"""Peak memory of one variant, rounded up; see ``bench/RESULTS.md`` for the measurements."""


def at_once(cores: int, memory_mib: int) -> int:
    """Return how many variants to run in parallel: one per core, if there is enough memory.

    An export keeps one core busy all the time, so more parallel runs would not be faster.
    """
    return max(1, min(cores, memory_mib // PEAK_MIB))


def machine_memory_mib() -> int:
    """Return the physical memory of this machine in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def run_together(
    session: Session, work: Callable[[str], _Result], names: Iterable[str], *, memory_mib: int
) -> tuple[_Result, ...]:
    """Run ``work`` for each name and return the results in that order.

    The number of parallel runs is limited by the cores and by the memory for all jobs in the session. If one
    run fails, the others continue. An interrupt kills the jobs of all runs.

    Raises:
        EngineError: the session did not start.
        RunnerError: a run failed; if several did, this is the error of the first in the order of the names.
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
                session.stop()  # otherwise the executor would wait until its jobs end
                raise
    failed = [(name, it.exception()) for name, it in zip(names, futures, strict=True) if it.exception()]
    for name, problem in failed[1:]:
        console.warn(f"{name} also failed: {problem}")
    return tuple(future.result() for future in futures)
